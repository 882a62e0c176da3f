// Command choria is a released Choria, for the tests beside it: its commands, and a server that can be
// provisioned.
//
// Choria's own packaging generates the registrations below and sets the variables by linker flags; the
// released module holds neither.
package main

import (
	"runtime/debug"
	"strings"

	"github.com/choria-io/go-choria/build"
	"github.com/choria-io/go-choria/cmd"
	"github.com/choria-io/go-choria/plugin"
	golang "github.com/choria-io/go-choria/providers/agent/mcorpc/golang"
	"github.com/choria-io/go-choria/providers/agent/mcorpc/golang/provision"
	"github.com/sirupsen/logrus"
)

func main() {
	build.Version = released()
	build.ProvisionModeDefault = "true"
	build.ProvisionJWTFile = "provisioning.jwt" // in the working directory

	plugins := map[string]plugin.Pluggable{
		"golangmco":        golang.ChoriaPlugin(),
		"choria_provision": provision.ChoriaPlugin(),
	}
	for name, pluggable := range plugins {
		must(plugin.Register(name, pluggable))
	}
	must(cmd.ParseCLI())
	must(cmd.Run())
}

// released returns the version of the module that this program is built of; the module's own variable may be older.
func released() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return build.Version
	}
	for _, dependency := range info.Deps {
		if dependency.Path == "github.com/choria-io/go-choria" {
			return strings.TrimPrefix(dependency.Version, "v")
		}
	}
	return build.Version
}

func must(err error) {
	if err != nil {
		logrus.Fatal(err)
	}
}
