package main

import (
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/choria-io/tokens"
)

type making struct {
	Kind       string `json:"kind"`
	SigningKey string `json:"signing_key"` // file: PEM, or a seed in hex
	PublicKey  string `json:"public_key"`  // hex
	Seconds    int    `json:"seconds"`
	Org        string `json:"org"`
	Issuer     string `json:"issuer"`

	// Provisioning tokens.
	Secure       bool             `json:"secure"`
	Default      bool             `json:"default"`
	Secret       string           `json:"secret"`
	User         string           `json:"user"`
	Password     string           `json:"password"`
	URLs         []string         `json:"urls"`
	SRVDomain    string           `json:"srv_domain"`
	Registration string           `json:"registration"`
	Facts        string           `json:"facts"`
	Extensions   tokens.MapClaims `json:"extensions"`
	ProtoV2      bool             `json:"protocol_v2"`
	AllowUpdate  bool             `json:"allow_update"`

	// Server and client tokens.
	Identity    string            `json:"identity"`
	Collectives []string          `json:"collectives"`
	Agents      []string          `json:"agents"`
	Properties  map[string]string `json:"properties"`
	OPA         string            `json:"opa"`
	Permissions json.RawMessage   `json:"permissions"`
	Publish     []string          `json:"publish"`
	Subscribe   []string          `json:"subscribe"`

	// Trust chains: the token is an organization issuer's, or one issued by the holder of a token.
	ChainIssuer bool   `json:"chain_issuer"`
	IssuedBy    string `json:"issued_by"`
}

func makeToken(line json.RawMessage) (any, error) {
	request, err := decode[making](line)
	if err != nil {
		return nil, err
	}
	switch request.Kind {
	case "provisioning":
		return makeProvisioning(request)
	case "server":
		return makeServer(request)
	case "client":
		return makeClient(request)
	default:
		return nil, fmt.Errorf("unknown kind %q", request.Kind)
	}
}

func makeProvisioning(r making) (any, error) {
	claims, err := tokens.NewProvisioningClaims(r.Secure, r.Default, r.Secret, r.User, r.Password, r.URLs, r.SRVDomain,
		r.Registration, r.Facts, r.Org, r.Issuer, r.validity())
	if err != nil {
		return nil, err
	}
	claims.Extensions = r.Extensions
	claims.ProtoV2 = r.ProtoV2
	claims.AllowUpdate = r.AllowUpdate
	return tokens.SignTokenWithKeyFile(claims, r.SigningKey)
}

func makeServer(r making) (any, error) {
	public, err := hex.DecodeString(r.PublicKey)
	if err != nil {
		return nil, err
	}
	permissions := &tokens.ServerPermissions{}
	if err := r.readPermissions(permissions); err != nil {
		return nil, err
	}
	claims, err := tokens.NewServerClaims(r.Identity, r.Collectives, r.Org, permissions, r.Publish, public, r.Issuer,
		r.validity())
	if err != nil {
		return nil, err
	}
	if err := r.chain(&claims.StandardClaims); err != nil {
		return nil, err
	}
	return tokens.SignTokenWithKeyFile(claims, r.SigningKey)
}

func makeClient(r making) (any, error) {
	public, err := hex.DecodeString(r.PublicKey)
	if err != nil {
		return nil, err
	}
	permissions := &tokens.ClientPermissions{}
	if err := r.readPermissions(permissions); err != nil {
		return nil, err
	}
	claims, err := tokens.NewClientIDClaims(r.Identity, r.Agents, r.Org, r.Properties, r.OPA, r.Issuer, r.validity(),
		permissions, public)
	if err != nil {
		return nil, err
	}
	claims.AdditionalPublishSubjects = r.Publish
	claims.AdditionalSubscribeSubjects = r.Subscribe
	if err := r.chain(&claims.StandardClaims); err != nil {
		return nil, err
	}
	return tokens.SignTokenWithKeyFile(claims, r.SigningKey)
}

func (r making) validity() time.Duration {
	return time.Duration(r.Seconds) * time.Second
}

// readPermissions insists on known names: a misspelt flag would otherwise test nothing.
func (r making) readPermissions(into any) error {
	if len(r.Permissions) == 0 {
		return nil
	}
	return decodeStrictly(r.Permissions, into)
}

func (r making) chain(claims *tokens.StandardClaims) error {
	switch {
	case r.ChainIssuer:
		key, err := seedFile(r.SigningKey)
		if err != nil {
			return err
		}
		return claims.AddOrgIssuerData(key)
	case r.IssuedBy != "":
		key, err := seedFile(r.SigningKey)
		if err != nil {
			return err
		}
		issuer, err := tokens.ParseClientIDTokenUnverified(r.IssuedBy)
		if err != nil {
			return err
		}
		return claims.AddChainIssuerData(issuer, key)
	default:
		return nil
	}
}

func seedFile(path string) (ed25519.PrivateKey, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	seed, err := hex.DecodeString(string(data))
	if err != nil {
		return nil, err
	}
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("%s holds %d bytes, not a seed", path, len(seed))
	}
	return ed25519.NewKeyFromSeed(seed), nil
}
