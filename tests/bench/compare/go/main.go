// The same decision by callout.go, with the same token cache.
// Usage: compare URL SERVICE_SEED ISSUER_SEED SIGNER_PEM; prints "ready".
package main

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/synadia-io/callout.go"
)

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func keyPair(file string) nkeys.KeyPair {
	return must(nkeys.FromSeed([]byte(strings.TrimSpace(string(must(os.ReadFile(file)))))))
}

func signerKey(file string) *rsa.PublicKey {
	block, _ := pem.Decode(must(os.ReadFile(file)))
	return must(x509.ParseCertificate(block.Bytes)).PublicKey.(*rsa.PublicKey)
}

type verifier struct {
	key     *rsa.PublicKey
	expires sync.Map // SHA-256 of a verified token to its exp
}

func (v *verifier) verify(token string) error {
	digest := sha256.Sum256([]byte(token))
	known, seen := v.expires.Load(digest)
	if !seen {
		expires, err := v.examine(token)
		if err != nil {
			return err
		}
		v.expires.Store(digest, expires)
		known = expires
	}
	if known.(int64) <= time.Now().Unix() {
		return errors.New("token expired")
	}
	return nil
}

func (v *verifier) examine(token string) (int64, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return 0, errors.New("not a token")
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return 0, err
	}
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if err := rsa.VerifyPKCS1v15(v.key, crypto.SHA256, digest[:], signature); err != nil {
		return 0, err
	}
	data, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return 0, err
	}
	var claims struct {
		Exp int64 `json:"exp"`
	}
	return claims.Exp, json.Unmarshal(data, &claims)
}

// silent spares callout.go the cost of its default, a log line for each request.
type silent struct{}

func (silent) Noticef(string, ...any) {}
func (silent) Warnf(string, ...any)   {}
func (silent) Fatalf(string, ...any)  {}
func (silent) Errorf(string, ...any)  {}
func (silent) Debugf(string, ...any)  {}
func (silent) Tracef(string, ...any)  {}

func main() {
	issuer, service := keyPair(os.Args[3]), keyPair(os.Args[2])
	known := &verifier{key: signerKey(os.Args[4])}
	agents := []string{"discovery", "rpcutil", "choria_util", "choria_provision"}

	authorize := func(request *jwt.AuthorizationRequest) (string, error) {
		if err := known.verify(request.ConnectOptions.Token); err != nil {
			return "", err
		}
		claims := jwt.NewUserClaims(request.UserNkey)
		claims.Audience = "provisioning"
		claims.Name = request.ConnectOptions.Name
		claims.Pub.Allow.Add("choria.lifecycle.>", "provisioning.reply.>", "provisioning.registration.>")
		for _, agent := range agents {
			claims.Sub.Allow.Add("provisioning.broadcast.agent." + agent)
		}
		claims.Sub.Allow.Add("provisioning.node." + request.ConnectOptions.Name)
		return claims.Encode(issuer)
	}

	public := must(service.PublicKey())
	client := must(nats.Connect(os.Args[1], nats.Nkey(public, service.Sign)))
	must(callout.NewAuthorizationService(
		client, callout.Authorizer(authorize), callout.ResponseSignerKey(issuer), callout.Logger(silent{}),
	))
	if err := client.Flush(); err != nil {
		log.Fatal(err)
	}
	fmt.Println("ready")
	select {}
}
