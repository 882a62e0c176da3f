// What nats-server computes for one callout, step by step, with the libraries that it uses (docs/callout-cost.md).
//
//	go test -bench . -benchtime 0.05s -count 10 -cpu 1
//
// On a busy machine read cpu-us/op, CPU of the process, and take the smallest.
package upstream

import (
	"crypto/rand"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
	"golang.org/x/crypto/nacl/box"
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

var (
	server  = must(nkeys.CreateServer())
	issuer  = must(nkeys.CreateAccount())
	user    = must(nkeys.CreateUser())
	userKey = must(user.PublicKey())
)

// measure reports CPU time, which others on the machine do not add to.
func measure(b *testing.B, step func()) {
	before := cpu()
	for b.Loop() {
		step()
	}
	b.ReportMetric(float64(cpu()-before)/float64(b.N)/1000, "cpu-us/op")
}

// cpu is the CPU time of this process in nanoseconds.
func cpu() int64 {
	var now syscall.Timespec
	const processCPU = 2 // CLOCK_PROCESS_CPUTIME_ID
	if _, _, err := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, processCPU, uintptr(unsafe.Pointer(&now)), 0); err != 0 {
		panic(err)
	}
	return now.Nano()
}

// request is what a member with a certificate chain of this many certificates causes.
func request(certificates int) *jwt.AuthorizationRequestClaims {
	claims := jwt.NewAuthorizationRequestClaims(must(issuer.PublicKey()))
	claims.Audience = "nats-authorization-request"
	claims.UserNkey = userKey
	claims.Server = jwt.ServerID{Name: "fleet", Host: "127.0.0.1", ID: must(server.PublicKey()), Version: "2.15.1"}
	claims.ConnectOptions = jwt.ConnectOptions{Name: "node1.example.net", Lang: "go", Version: "1.40.0", Protocol: 1}
	chain := make([]string, certificates)
	for i := range chain {
		chain[i] = "-----BEGIN CERTIFICATE-----\n" + strings.Repeat(strings.Repeat("M", 64)+"\n", 11) + "-----END CERTIFICATE-----\n"
	}
	claims.TLS = &jwt.ClientTLS{Version: "1.3", Cipher: "TLS_AES_128_GCM_SHA256", VerifiedChains: []jwt.StringList{chain}}
	return claims
}

// answer admits with this many subjects in each permission list.
func answer(subjects int) string {
	claims := jwt.NewUserClaims(userKey)
	claims.Audience = "choria"
	for i := range subjects {
		claims.Pub.Allow.Add(fmt.Sprintf("collective.broadcast.agent.%d", i))
		claims.Sub.Allow.Add(fmt.Sprintf("collective.reply.node.%d.>", i))
	}
	response := jwt.NewAuthorizationResponseClaims(userKey)
	response.Audience = must(server.PublicKey())
	response.Jwt = must(claims.Encode(issuer))
	return must(response.Encode(issuer))
}

func BenchmarkUserKey(b *testing.B) {
	b.Run("create and read public key", func(b *testing.B) {
		measure(b, func() {
			must(must(nkeys.CreateUser()).PublicKey())
		})
	})
	b.Run("create", func(b *testing.B) {
		measure(b, func() {
			must(nkeys.CreateUser())
		})
	})
}

func BenchmarkServerKey(b *testing.B) {
	b.Run("public key", func(b *testing.B) {
		measure(b, func() {
			must(server.PublicKey())
		})
	})
	b.Run("sign 2 KB", func(b *testing.B) {
		text := make([]byte, 2048)
		measure(b, func() {
			must(server.Sign(text))
		})
	})
}

func BenchmarkRequest(b *testing.B) {
	for _, certificates := range []int{0, 2, 3, 5} {
		b.Run(fmt.Sprintf("certificates=%d", certificates), func(b *testing.B) {
			claims := request(certificates)
			measure(b, func() {
				must(claims.Encode(server))
			})
			b.ReportMetric(float64(len(must(claims.Encode(server)))), "bytes")
		})
	}
}

func BenchmarkAnswer(b *testing.B) {
	for _, subjects := range []int{1, 10, 100, 400} {
		b.Run(fmt.Sprintf("subjects=%d", 2*subjects), func(b *testing.B) {
			text := answer(subjects)
			measure(b, func() {
				response := must(jwt.DecodeAuthorizationResponseClaims(text))
				must(jwt.DecodeUserClaims(response.Jwt))
			})
			b.ReportMetric(float64(len(text)), "bytes")
		})
	}
}

func BenchmarkBox(b *testing.B) {
	mine, theirs := must(nkeys.CreateCurveKeys()), must(nkeys.CreateCurveKeys())
	public := must(theirs.PublicKey())
	text := make([]byte, 3000)
	sealed := must(theirs.Seal(text, must(mine.PublicKey())))
	b.Run("seal 3 KB", func(b *testing.B) {
		measure(b, func() {
			must(mine.Seal(text, public))
		})
	})
	b.Run("open 3 KB", func(b *testing.B) {
		measure(b, func() {
			must(mine.Open(sealed, public))
		})
	})
	b.Run("seal 3 KB by a key kept", func(b *testing.B) {
		peer, secret, err := box.GenerateKey(rand.Reader)
		if err != nil {
			b.Fatal(err)
		}
		var shared [32]byte
		box.Precompute(&shared, peer, secret)
		var nonce [24]byte
		measure(b, func() {
			box.SealAfterPrecomputation(nil, text, &nonce, &shared)
		})
	})
}
