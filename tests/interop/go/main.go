// Command interop makes and checks tokens with choria-io/tokens on behalf of the tests beside it.
//
// One JSON request a line on standard input, one JSON answer a line on standard output. An answer
// is {"ok": …} or {"error": "…"}; only a request that is not JSON ends the program.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
)

// Bounds one request; a token is at most 16 KiB on the other side.
const maxLine = 1 << 20

var operations = map[string]func(json.RawMessage) (any, error){
	"make":         makeToken,
	"check":        checkToken,
	"chain":        checkChain,
	"look":         lookAtToken,
	"connect":      connect,
	"verify_nonce": verifyNonce,
	"ksuid":        ksuidTime,
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(make([]byte, 0, 64*1024), maxLine)
	answers := json.NewEncoder(os.Stdout)

	for lines.Scan() {
		answer, err := handle(lines.Bytes())
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if err := answers.Encode(answer); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func handle(line []byte) (map[string]any, error) {
	var request struct {
		Operation string `json:"operation"`
	}
	if err := json.Unmarshal(line, &request); err != nil {
		return nil, fmt.Errorf("not a request: %w", err)
	}
	operation, known := operations[request.Operation]
	if !known {
		return nil, fmt.Errorf("unknown operation %q", request.Operation)
	}
	result, err := operation(line)
	if err != nil {
		return map[string]any{"error": err.Error()}, nil
	}
	return map[string]any{"ok": result}, nil
}

func decode[T any](line json.RawMessage) (T, error) {
	var request T
	err := json.Unmarshal(line, &request)
	return request, err
}
