// Command trusted-backend is a login service that keeps its own users and lets
// Gatehouse keep the session.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"time"
)

// check is your own check. Here: one user, for the example.
func check(email, password string) (user map[string]any, ok bool) {
	user = map[string]any{"userId": "erin", "email": email, "roles": []string{"member"}, "organizationId": "org-1"}
	return user, email == "erin@example.com" && password == os.Getenv("ERINS_PASSWORD")
}

func login(w http.ResponseWriter, r *http.Request) {
	var body struct{ Email, Password string }
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4096)).Decode(&body); err != nil {
		http.Error(w, `{"error":"Bad request"}`, http.StatusBadRequest)
		return
	}
	user, ok := check(body.Email, body.Password)
	if !ok {
		http.Error(w, `{"error":"Invalid credentials"}`, http.StatusUnauthorized)
		return
	}
	user["address"], _, _ = net.SplitHostPort(r.RemoteAddr)
	user["userAgent"] = r.UserAgent()
	text, _ := json.Marshal(user)                                                                                                                // strings and lists of strings
	request, err := http.NewRequestWithContext(r.Context(), http.MethodPost, os.Getenv("GATEHOUSE_URL")+"/auth/sessions", bytes.NewReader(text)) //nolint:gosec // G704: the operator names the server
	if err != nil {
		http.Error(w, `{"error":"Authentication unavailable"}`, http.StatusServiceUnavailable)
		return
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("x-internal-api-key", os.Getenv("GATEHOUSE_KEY"))
	session, err := http.DefaultClient.Do(request) //nolint:gosec // G704: as above
	if err != nil {
		http.Error(w, `{"error":"Authentication unavailable"}`, http.StatusServiceUnavailable)
		return
	}
	defer func() { _ = session.Body.Close() }()
	w.Header().Set("Content-Type", "application/json")
	if session.StatusCode != http.StatusCreated { // what Gatehouse says about it: locked out, or the store is away
		w.WriteHeader(session.StatusCode)
		_, _ = io.Copy(w, session.Body)
		return
	}
	w.Header()["Set-Cookie"] = session.Header.Values("Set-Cookie")
	_, _ = io.WriteString(w, `{"userId":"erin"}`)
}

func main() {
	http.HandleFunc("POST /login", login)
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // lives as long as the program
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on %d\n", listener.Addr().(*net.TCPAddr).Port)
	log.Fatal((&http.Server{ReadHeaderTimeout: 5 * time.Second}).Serve(listener))
}
