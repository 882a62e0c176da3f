// Command choria_server is the server of a current Choria, for the tests beside it: it waits to be provisioned, and
// joins the fleet with the configuration that it is given. It has one command, `server run --config FILE`.
//
// Choria's own command line, which ../choria holds in an older release, needs modules that are not served everywhere.
// What it does before it starts a server is done here.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/choria-io/go-choria/build"
	"github.com/choria-io/go-choria/choria"
	"github.com/choria-io/go-choria/config"
	"github.com/choria-io/go-choria/plugin"
	golang "github.com/choria-io/go-choria/providers/agent/mcorpc/golang"
	"github.com/choria-io/go-choria/providers/agent/mcorpc/golang/provision"
	"github.com/choria-io/go-choria/providers/provtarget"
	"github.com/choria-io/go-choria/server"
	"github.com/sirupsen/logrus"
)

func main() {
	build.Version = released()
	if slices.Equal(os.Args[1:], []string{"--version"}) {
		fmt.Println(build.Version)
		return
	}
	if len(os.Args) != 5 || !slices.Equal(os.Args[1:4], []string{"server", "run", "--config"}) {
		logrus.Fatalf("usage: %s server run --config FILE", os.Args[0])
	}
	build.ProvisionModeDefault = "true"
	build.ProvisionJWTFile = "provisioning.jwt" // in the working directory

	plugins := map[string]plugin.Pluggable{
		"golangmco":        golang.ChoriaPlugin(),
		"choria_provision": provision.ChoriaPlugin(),
	}
	for name, pluggable := range plugins {
		must(plugin.Register(name, pluggable))
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	must(run(ctx, os.Args[4]))
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

func run(ctx context.Context, file string) error {
	cfg, err := configuration(ctx, file)
	if err != nil {
		return err
	}
	cfg.ApplyBuildSettings(&build.Info{})
	framework, err := choria.NewWithConfig(cfg)
	if err != nil {
		return err
	}
	framework.ConfigureProvisioning(ctx)
	instance, err := server.NewInstance(framework)
	if err != nil {
		return err
	}
	wg := &sync.WaitGroup{}
	wg.Add(1)
	err = instance.Run(ctx, wg)
	wg.Wait()
	return err
}

// configuration reads the file, or returns the one for waiting: without a file, or where it asks for that.
func configuration(ctx context.Context, file string) (*config.Config, error) {
	if _, err := os.Stat(file); err == nil {
		cfg, err := config.NewSystemConfig(file, true)
		if err != nil {
			return nil, err
		}
		provtarget.Configure(ctx, cfg, logrus.WithField("component", "provtarget"))
		if cfg.HasOption("plugin.choria.server.provision") && !cfg.Choria.Provision {
			return cfg, nil
		}
		forget(cfg)
	}
	cfg, err := config.NewDefaultSystemConfig(true)
	if err != nil {
		return nil, err
	}
	cfg.ConfigFile = file
	cfg.Choria.SecurityProvider = "file"
	cfg.DisableSecurityProviderVerify = true
	return cfg, nil
}

// forget removes the token and the key that the server had.
func forget(cfg *config.Config) {
	for _, file := range []string{
		cfg.Choria.ServerTokenFile, cfg.Choria.ServerTokenSeedFile,
		cfg.Choria.ChoriaSecurityTokenFile, cfg.Choria.ChoriaSecuritySeedFile,
	} {
		if file != "" {
			_ = os.Remove(file)
		}
	}
}

func must(err error) {
	if err != nil {
		logrus.Fatal(err)
	}
}
