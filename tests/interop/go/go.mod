module broker-auth/tests/interop

go 1.25.0

require (
	github.com/choria-io/tokens v0.0.4
	github.com/segmentio/ksuid v1.0.4
	github.com/sirupsen/logrus v1.9.4
)

require (
	github.com/Masterminds/semver/v3 v3.5.0 // indirect
	github.com/go-task/slim-sprig/v3 v3.0.0 // indirect
	github.com/golang-jwt/jwt/v5 v5.3.1 // indirect
	github.com/google/pprof v0.0.0-20260507013755-92041b743c96 // indirect
	github.com/onsi/ginkgo/v2 v2.28.3 // indirect
	golang.org/x/mod v0.36.0 // indirect
	golang.org/x/sync v0.20.0 // indirect
	golang.org/x/sys v0.44.0 // indirect
	golang.org/x/tools v0.45.0 // indirect
)
