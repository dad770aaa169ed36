package line

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Message reads one message of the protocol, RESP 2, a command or a reply, as it is.
func Message(r *bufio.Reader) ([]byte, error) {
	text, err := r.ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	if kind := text[0]; kind != '$' && kind != '*' {
		return text, nil
	}
	n, err := strconv.Atoi(string(bytes.TrimSpace(text[1:])))
	if err != nil {
		return nil, fmt.Errorf("a message without a length: %q", text)
	}
	if text[0] == '*' {
		for range n {
			part, err := Message(r)
			if err != nil {
				return nil, err
			}
			text = append(text, part...)
		}
		return text, nil
	}
	if n < 0 { // there is none
		return text, nil
	}
	body := make([]byte, n+2)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, err
	}
	return append(text, body...), nil
}

// Name returns the first word of a command, in capitals; "" of what is none.
func Name(command []byte) string {
	parts := strings.SplitN(string(command), "\r\n", 4) // *n, $n, the word
	if len(parts) < 4 || parts[0][:1] != "*" {
		return ""
	}
	return strings.ToUpper(parts[2])
}
