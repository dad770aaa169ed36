package openapitest_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/openapitest"
)

const pets = `
openapi: 3.1.0
info: {title: Pets, version: "1"}
paths:
  /pets:
    post:
      requestBody:
        required: true
        content:
          application/json: {schema: {$ref: "#/components/schemas/Pet"}}
          application/x-www-form-urlencoded: {schema: {type: object, required: [name]}}
      responses:
        "201":
          description: made
          headers:
            Set-Cookie: {required: true, schema: {type: string, pattern: "^a="}}
          content: {application/json: {schema: {$ref: "#/components/schemas/Pet"}}}
        "400": {$ref: "#/components/responses/BadRequest"}
  /pets/mine:
    get:
      responses:
        "200": {description: nothing}
  /pets/{name}:
    get:
      responses:
        "200": {description: a page, content: {text/html: {schema: {type: string, minLength: 3}}}}
        "404": {$ref: "#/components/responses/NotFound"}
components:
  schemas:
    Pet: {type: object, properties: {name: {type: string}}, required: [name], additionalProperties: false}
  responses:
    BadRequest: {description: bad, content: {application/json: {schema: {const: bad}}}}
    NotFound: {description: none, content: {application/json: {schema: {const: none}}}}
    MethodNotAllowed:
      description: no
      headers: {Allow: {required: true, schema: {type: string}}}
      content: {application/json: {schema: {const: "no"}}}
`

func load(t *testing.T) *openapitest.Spec {
	t.Helper()
	spec, err := openapitest.Load([]byte(pets))
	require.NoError(t, err)
	return spec
}

func header(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

func TestCheck(t *testing.T) {
	t.Parallel()
	inJSON := header("Content-Type", "application/json")
	made := header("Content-Type", "application/json", "Set-Cookie", "a=1")
	post := func(body string, status int, answer http.Header, text string) openapitest.Exchange {
		return openapitest.Exchange{Method: "POST", Target: "/pets?x=/y", Header: inJSON, RequestBody: []byte(body), Status: status, AnswerHeader: answer, Body: []byte(text)}
	}
	get := func(target string, status int, answer http.Header, text string) openapitest.Exchange {
		return openapitest.Exchange{Method: "GET", Target: target, Status: status, AnswerHeader: answer, Body: []byte(text)}
	}
	with := func(e openapitest.Exchange, method string) openapitest.Exchange { e.Method = method; return e }
	for name, tt := range map[string]struct {
		exchange openapitest.Exchange
		wrong    string // "" nothing
	}{
		"as described":              {post(`{"name":"a"}`, 201, made, `{"name":"a"}`), ""},
		"another answer":            {post(`{"name":"a"}`, 201, made, `{"name":1}`), "/name does not fit"},
		"too much in the answer":    {post(`{"name":"a"}`, 201, made, `{"name":"a","x":1}`), "does not fit"},
		"no JSON":                   {post(`{"name":"a"}`, 201, made, `{`), "not JSON"},
		"another type":              {post(`{"name":"a"}`, 201, header("Content-Type", "text/html", "Set-Cookie", "a=1"), `x`), `type "text/html"`},
		"no type":                   {post(`{"name":"a"}`, 201, header("Set-Cookie", "a=1"), `x`), `type ""`},
		"another status":            {post(`{"name":"a"}`, 204, made, ``), "status"},
		"a header is missing":       {post(`{"name":"a"}`, 201, inJSON, `{"name":"a"}`), "header Set-Cookie is missing"},
		"one of two headers":        {post(`{"name":"a"}`, 201, header("Content-Type", "application/json", "Set-Cookie", "a=1", "Set-Cookie", "b=1"), `{"name":"a"}`), "header Set-Cookie"},
		"a header of its own":       {post(`{"name":"a"}`, 201, header("Content-Type", "application/json", "Set-Cookie", "a=1", "Location", "/"), `{"name":"a"}`), "header Location"},
		"success with a wrong body": {post(`{"title":"a"}`, 201, made, `{"name":"a"}`), "it succeeded"},
		"success without a body":    {post(``, 201, made, `{"name":"a"}`), "it succeeded"},
		"refused":                   {post(`{"title":"a"}`, 400, inJSON, `"bad"`), ""},
		"refused in other words":    {post(`{"title":"a"}`, 400, inJSON, `"Bad"`), "does not fit"},
		"a template":                {get("/pets/rex?x=1", 200, header("Content-Type", "text/html; charset=utf-8"), "<p>"), ""},
		"a template, encoded":       {get("/p%65ts/a%2fb", 200, header("Content-Type", "text/html"), "<p>"), ""},
		"a template, too short":     {get("/pets/rex", 200, header("Content-Type", "text/html"), "p"), "does not fit"},
		"HEAD":                      {with(get("/pets/rex", 200, header("Content-Type", "text/html"), ""), "HEAD"), ""},
		"HEAD with a body":          {with(get("/pets/rex", 200, header("Content-Type", "text/html"), "<p>"), "HEAD"), "HEAD"},
		"without a name first":      {get("/pets/mine", 200, nil, ""), ""},
		"a body for nothing":        {get("/pets/mine", 200, nil, "x"), "a body"},
		"no such path":              {get("/pets/", 404, inJSON, `"none"`), ""},
		"no such path, and yet":     {get("/pets/", 200, inJSON, `"none"`), "no such operation"},
		"a path not to be read":     {get("/pets//a", 400, inJSON, `"bad"`), ""},
		"no such method":            {with(get("/pets/rex", 405, header("Content-Type", "application/json", "Allow", "GET, HEAD"), `"no"`), "PUT"), ""},
		"no such method, and yet":   {with(get("/pets/rex", 200, header("Content-Type", "text/html"), "<p>"), "PUT"), "no such operation"},
		"allowed and not":           {with(get("/pets/rex", 405, header("Content-Type", "application/json", "Allow", "GET, PUT"), `"no"`), "PUT"), "allowed"},
		"405 without Allow":         {with(get("/pets/rex", 405, inJSON, `"no"`), "PUT"), "header Allow"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := load(t).Check(tt.exchange)
			if tt.wrong == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tt.wrong)
		})
	}
	form := post(`name=a`, 201, made, `{"name":"a"}`)
	form.Header = header("Content-Type", "application/x-www-form-urlencoded")
	require.NoError(t, load(t).Check(form))
	form.RequestBody = []byte("title=a")
	require.ErrorContains(t, load(t).Check(form), "it succeeded")
}

func TestErrorsDoNotQuoteValues(t *testing.T) {
	t.Parallel()
	err := load(t).Check(openapitest.Exchange{
		Method: "POST", Target: "/pets?secret", Status: 201, RequestBody: []byte(`{"name":["secret"]}`),
		AnswerHeader: header("Content-Type", "application/json", "Set-Cookie", "secret=secret"), Body: []byte(`{"name":{"secret":1}}`),
	})
	require.Error(t, err)
	require.NotContains(t, err.Error(), "secret")
}

func TestUnseen(t *testing.T) {
	t.Parallel()
	spec := load(t)
	require.Equal(t, []string{"POST /pets", "GET /pets/mine", "GET /pets/{name}"}, spec.Operations())
	require.Equal(t, []string{"POST /pets 201", "POST /pets 400", "GET /pets/mine 200", "GET /pets/{name} 200", "GET /pets/{name} 404"}, spec.Unseen())
	require.NoError(t, spec.Check(openapitest.Exchange{Method: "HEAD", Target: "/pets/mine", Status: 200}))
	require.Error(t, spec.Check(openapitest.Exchange{Method: "GET", Target: "/pets/a", Status: 404, Body: []byte("x")}))
	require.Equal(t, []string{"POST /pets 201", "POST /pets 400", "GET /pets/{name} 200", "GET /pets/{name} 404"}, spec.Unseen())
}

func TestTransport(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Set-Cookie", "a=1")
		w.WriteHeader(201)
		_, _ = w.Write(body)
	}))
	defer server.Close()
	spec := load(t)
	var wrong []error
	client := &http.Client{Transport: spec.Transport(http.DefaultTransport, func(err error) { wrong = append(wrong, err) })}
	for _, body := range []string{`{"name":"a"}`, `{"name":1}`} {
		answer, err := client.Post(server.URL+"/pets", "application/json", strings.NewReader(body))
		require.NoError(t, err)
		text, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		require.Equal(t, body, string(text), "both sides read it all")
	}
	require.Len(t, wrong, 1)
	require.NotContains(t, spec.Unseen(), "POST /pets 201")
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"no YAML":        "{",
		"no description": "a: 1",
		"3.0":            "openapi: 3.0.3",
		"a bad schema":   strings.Replace(pets, "minLength: 3", "minLength: x", 1),
		"a bad pattern":  strings.Replace(pets, "^a=", "(", 1),
		"a dead end":     strings.Replace(pets, `"#/components/schemas/Pet"`, `"#/components/schemas/Dog"`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := openapitest.Load([]byte(text))
			require.Error(t, err)
		})
	}
}
