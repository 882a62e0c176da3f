package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"

	"github.com/choria-io/tokens"
	"github.com/segmentio/ksuid"
	"github.com/sirupsen/logrus"
)

type checking struct {
	Kind  string `json:"kind"`
	Token string `json:"token"`
	Key   string `json:"key"` // file: PEM, or a public key in hex
}

// checkToken verifies a token as Choria's broker does and answers its claims.
func checkToken(line json.RawMessage) (any, error) {
	request, err := decode[checking](line)
	if err != nil {
		return nil, err
	}
	switch request.Kind {
	case "provisioning":
		return tokens.ParseProvisioningTokenWithKeyfile(request.Token, request.Key)
	case "server":
		return tokens.ParseServerTokenWithKeyfile(request.Token, request.Key)
	case "client":
		return tokens.ParseClientIDTokenWithKeyfile(request.Token, request.Key, true)
	default:
		return nil, fmt.Errorf("unknown kind %q", request.Kind)
	}
}

// checkChain asks whether a client token stands in the chain of an organization, and may issue others.
func checkChain(line json.RawMessage) (any, error) {
	request, err := decode[struct {
		Token string `json:"token"`
		Org   string `json:"org"` // public key, hex
	}](line)
	if err != nil {
		return nil, err
	}
	org, err := hex.DecodeString(request.Org)
	if err != nil {
		return nil, err
	}
	claims, err := tokens.ParseClientIDTokenUnverified(request.Token)
	if err != nil {
		return nil, err
	}
	signed, signer, err := claims.IsSignedByIssuer(org)
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"signed":     signed,
		"signer":     hex.EncodeToString(signer),
		"may_issue":  claims.IsChainedIssuer(true),
		"is_expired": claims.IsExpired(),
	}, nil
}

// lookAtToken answers what Choria's broker reads of a token before it verifies it.
func lookAtToken(line json.RawMessage) (any, error) {
	request, err := decode[struct {
		Token string `json:"token"`
	}](line)
	if err != nil {
		return nil, err
	}
	algorithm, err := tokens.TokenSigningAlgorithm(request.Token)
	if err != nil {
		return nil, err
	}
	return map[string]any{"purpose": tokens.TokenPurpose(request.Token), "algorithm": algorithm}, nil
}

// connect answers what a Choria client or server would connect with, given the broker's nonce.
func connect(line json.RawMessage) (any, error) {
	request, err := decode[struct {
		Token      string `json:"token"`
		Collective string `json:"collective"`
		Seed       string `json:"seed"` // file
		Nonce      string `json:"nonce"`
	}](line)
	if err != nil {
		return nil, err
	}
	quiet := logrus.New()
	quiet.SetOutput(io.Discard)
	inbox, token, sign, err := tokens.NatsConnectionHelpers(request.Token, request.Collective, request.Seed,
		logrus.NewEntry(quiet))
	if err != nil {
		return nil, err
	}
	presented, err := token()
	if err != nil {
		return nil, err
	}
	signature, err := sign([]byte(request.Nonce))
	if err != nil {
		return nil, err
	}
	// The NATS client for Go encodes signatures so.
	return map[string]any{
		"inbox":     inbox,
		"token":     presented,
		"signature": base64.RawURLEncoding.EncodeToString(signature),
	}, nil
}

// verifyNonce repeats what Choria's broker does with a signature.
func verifyNonce(line json.RawMessage) (any, error) {
	request, err := decode[struct {
		PublicKey string `json:"public_key"`
		Nonce     string `json:"nonce"`
		Signature string `json:"signature"`
	}](line)
	if err != nil {
		return nil, err
	}
	public, err := hex.DecodeString(request.PublicKey)
	if err != nil {
		return nil, err
	}
	if len(public) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("invalid public key length %d", len(public))
	}
	signature, err := base64.RawURLEncoding.DecodeString(request.Signature)
	if err != nil {
		return nil, err
	}
	return ed25519.Verify(public, []byte(request.Nonce), signature), nil
}

func ksuidTime(line json.RawMessage) (any, error) {
	request, err := decode[struct {
		ID string `json:"id"`
	}](line)
	if err != nil {
		return nil, err
	}
	id, err := ksuid.Parse(request.ID)
	if err != nil {
		return nil, err
	}
	return id.Time().Unix(), nil
}

func decodeStrictly(data []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	return decoder.Decode(into)
}
