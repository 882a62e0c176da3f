module broker-auth/tests/bench/upstream

go 1.26.0

require (
	github.com/nats-io/jwt/v2 v2.8.2
	github.com/nats-io/nkeys v0.4.16
	golang.org/x/crypto v0.57.0
)

require golang.org/x/sys v0.48.0 // indirect
