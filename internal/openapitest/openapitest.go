// Package openapitest holds an OpenAPI 3.1 description true: it checks what was
// really said against what the description promises, and remembers what it has
// seen.
//
//	spec, err := openapitest.Load(authapi.OpenAPI())
//	client.Transport = spec.Transport(http.DefaultTransport, func(err error) { t.Error(err) })
//	…
//	require.Empty(t, spec.Unseen())
//
// An exchange is true when path, method and status are described, the headers
// of the answer are (each that is required, and none of those that mean
// something to clients beyond it), the body has a described type and fits its
// schema, and the request of a successful call fits its own.
//
// It knows what the descriptions of this project use: references within the
// document, path templates of whole segments, and components.responses named
// NotFound, MethodNotAllowed and BadRequest for what no operation describes.
package openapitest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"
)

// Exchange is one request and its answer.
type Exchange struct {
	Method      string
	Target      string // path and query, as sent
	Header      http.Header
	RequestBody []byte

	Status       int
	AnswerHeader http.Header
	Body         []byte
}

// Spec is a description. Safe for concurrent use.
type Spec struct {
	doc      object
	compiler *jsonschema.Compiler

	mu      sync.Mutex
	schemas map[string]*jsonschema.Schema
	seen    map[string]bool
}

type object = map[string]any

const location = "openapi.json" // where the compiler believes to have the document from

// Load reads a description and compiles every schema in it.
func Load(text []byte) (*Spec, error) {
	var tree any
	if err := yaml.Unmarshal(text, &tree); err != nil {
		return nil, fmt.Errorf("openapi: %w", err)
	}
	inJSON, err := json.Marshal(tree)
	if err != nil {
		return nil, fmt.Errorf("openapi: %w", err)
	}
	tree, err = jsonschema.UnmarshalJSON(bytes.NewReader(inJSON))
	if err != nil {
		return nil, fmt.Errorf("openapi: %w", err)
	}
	doc, ok := tree.(object)
	if !ok || !strings.HasPrefix(fmt.Sprint(doc["openapi"]), "3.1.") {
		return nil, errors.New("openapi: not a description in OpenAPI 3.1")
	}
	s := &Spec{doc: doc, compiler: jsonschema.NewCompiler(), schemas: map[string]*jsonschema.Schema{}, seen: map[string]bool{}}
	s.compiler.DefaultDraft(jsonschema.Draft2020)
	if err := s.compiler.AddResource(location, doc); err != nil {
		return nil, fmt.Errorf("openapi: %w", err)
	}
	return s, s.compileAll()
}

// methods are those that a path can describe, in lower case.
var methods = []string{"get", "put", "post", "delete", "options", "head", "patch", "trace"}

// operations yields each operation with the pointer to it.
func (s *Spec) operations(yield func(path, method, pointer string)) {
	paths := member(s.doc, "paths")
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		item := member(paths, path)
		for _, method := range methods {
			if item[method] != nil {
				yield(path, strings.ToUpper(method), "/paths/"+escape(path)+"/"+method)
			}
		}
	}
}

// Operations returns each as "METHOD /path/{template}", sorted by path.
func (s *Spec) Operations() []string {
	var all []string
	s.operations(func(path, method, _ string) { all = append(all, method+" "+path) })
	return all
}

// Unseen returns each described status of each operation that no checked
// exchange had, as "METHOD /path/{template} STATUS".
func (s *Spec) Unseen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var unseen []string
	s.operations(func(path, method, pointer string) {
		for _, status := range slices.Sorted(maps.Keys(member(s.at(pointer), "responses"))) {
			if name := method + " " + path + " " + status; !s.seen[name] {
				unseen = append(unseen, name)
			}
		}
	})
	return unseen
}

// compileAll finds what is wrong with schemas and references before anything
// is checked.
func (s *Spec) compileAll() error {
	var errs []error
	check := func(pointer string) {
		if _, err := s.schema(pointer); err != nil {
			errs = append(errs, err)
		}
	}
	contents := func(pointer string) {
		for kind := range member(s.at(pointer), "content") {
			check(pointer + "/content/" + escape(kind) + "/schema")
		}
	}
	s.operations(func(_, _, pointer string) {
		op := s.at(pointer)
		if op["requestBody"] != nil {
			contents(s.resolve(pointer + "/requestBody"))
		}
		for status := range member(op, "responses") {
			response := s.resolve(pointer + "/responses/" + status)
			contents(response)
			for name := range member(s.at(response), "headers") {
				check(s.resolve(response+"/headers/"+name) + "/schema")
			}
		}
	})
	for name := range member(member(s.doc, "components"), "schemas") {
		check("/components/schemas/" + escape(name))
	}
	return errors.Join(errs...)
}

// Check reports what about an exchange is not as described.
func (s *Spec) Check(e Exchange) error {
	if err := s.check(e); err != nil {
		path, _, _ := strings.Cut(e.Target, "?")
		return fmt.Errorf("openapi: %s %s answered %d: %w", e.Method, path, e.Status, err)
	}
	return nil
}

func (s *Spec) check(e Exchange) error {
	method := e.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	path, _, _ := strings.Cut(e.Target, "?")
	template, others := s.find(path, method)
	switch {
	case template != "":
	case e.Status == http.StatusBadRequest:
		return s.checkResponse(e, "/components/responses/BadRequest")
	case others && e.Status == http.StatusMethodNotAllowed:
		if slices.Contains(strings.Split(e.AnswerHeader.Get("Allow"), ", "), e.Method) {
			return errors.New("the method is allowed and not allowed")
		}
		return s.checkResponse(e, "/components/responses/MethodNotAllowed")
	case !others && e.Status == http.StatusNotFound:
		return s.checkResponse(e, "/components/responses/NotFound")
	default:
		return errors.New("no such operation is described")
	}
	pointer := "/paths/" + escape(template) + "/" + strings.ToLower(method)
	status := strconv.Itoa(e.Status)
	if member(s.at(pointer), "responses")[status] == nil {
		return errors.New("this status is not described")
	}
	err := errors.Join(s.checkResponse(e, s.resolve(pointer+"/responses/"+status)), s.checkRequest(e, pointer))
	if err == nil {
		s.mu.Lock()
		s.seen[method+" "+template+" "+status] = true
		s.mu.Unlock()
	}
	return err
}

// find returns the template that a path fits and that has the method; "" for
// none, and whether it has others. A template without a name in braces comes
// first.
func (s *Spec) find(path, method string) (template string, others bool) {
	s.operations(func(candidate, m, _ string) {
		if !fits(path, candidate) {
			return
		}
		others = true
		if m == method && (template == "" || strings.Count(candidate, "{") < strings.Count(template, "{")) {
			template = candidate
		}
	})
	return template, others
}

// fits reports whether a path is one of a template. Names in braces stand for
// one segment that is not empty.
func fits(path, template string) bool {
	got, want := strings.Split(path, "/"), strings.Split(template, "/")
	if len(got) != len(want) {
		return false
	}
	for i := range want {
		if strings.HasPrefix(want[i], "{") {
			if got[i] == "" {
				return false
			}
			continue
		}
		if plain, err := url.PathUnescape(got[i]); err != nil || plain != want[i] {
			return false
		}
	}
	return true
}

// telling are headers that mean something to clients: an answer has none that
// is not described.
var telling = []string{"Set-Cookie", "Location", "Retry-After", "Www-Authenticate", "Allow", "Etag"}

func (s *Spec) checkResponse(e Exchange, pointer string) error {
	response := s.at(pointer)
	var errs []error
	described := map[string]bool{}
	for name := range member(response, "headers") {
		described[http.CanonicalHeaderKey(name)] = true
		header := s.resolve(pointer + "/headers/" + name)
		values := e.AnswerHeader.Values(name)
		if required, _ := s.at(header)["required"].(bool); required && len(values) == 0 {
			errs = append(errs, fmt.Errorf("header %s is missing", name))
		}
		for _, value := range values {
			if err := s.validate(header+"/schema", value); err != nil {
				errs = append(errs, fmt.Errorf("header %s: %w", name, err))
			}
		}
	}
	for _, name := range telling {
		if !described[name] && e.AnswerHeader.Get(name) != "" {
			errs = append(errs, fmt.Errorf("header %s is not described", name))
		}
	}
	return errors.Join(append(errs, s.checkBody(e, pointer))...)
}

func (s *Spec) checkBody(e Exchange, pointer string) error {
	content := member(s.at(pointer), "content")
	kind, err := mediaType(e.AnswerHeader)
	switch {
	case len(content) == 0 && len(e.Body) > 0:
		return errors.New("a body where none is described")
	case len(content) == 0:
		return nil
	case err != nil:
		return err
	case content[kind] == nil:
		return fmt.Errorf("type %q is not described", kind)
	case e.Method == http.MethodHead && len(e.Body) > 0:
		return errors.New("a body in the answer to HEAD")
	case e.Method == http.MethodHead:
		return nil
	}
	return s.validateText(pointer+"/content/"+escape(kind)+"/schema", kind, e.Body)
}

// checkRequest checks the request of a call that succeeded.
func (s *Spec) checkRequest(e Exchange, pointer string) error {
	op := s.at(pointer)
	if e.Status >= 300 || op["requestBody"] == nil {
		return nil
	}
	body := s.resolve(pointer + "/requestBody")
	if len(bytes.TrimSpace(e.RequestBody)) == 0 {
		if required, _ := s.at(body)["required"].(bool); required {
			return errors.New("it succeeded without a body, which is described as required")
		}
		return nil
	}
	content := member(s.at(body), "content")
	kind, _ := mediaType(e.Header)
	if content[kind] == nil { // what is no form is read as JSON
		kind = "application/json"
	}
	if content[kind] == nil {
		return errors.New("it succeeded with a body of a type that is not described")
	}
	if err := s.validateText(body+"/content/"+escape(kind)+"/schema", kind, e.RequestBody); err != nil {
		return fmt.Errorf("it succeeded with a body that is not as described: %w", err)
	}
	return nil
}

func mediaType(h http.Header) (string, error) {
	kind, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil {
		return "", fmt.Errorf("type %q: %w", h.Get("Content-Type"), err)
	}
	return kind, nil
}

func (s *Spec) validateText(schema, kind string, text []byte) error {
	switch {
	case strings.HasSuffix(kind, "json"):
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			return fmt.Errorf("the body is not JSON: %w", err)
		}
		return s.validate(schema, value)
	case kind == "application/x-www-form-urlencoded":
		form, err := url.ParseQuery(string(text))
		if err != nil {
			return errors.New("the body is not a form")
		}
		value := object{}
		for name := range form {
			value[name] = form.Get(name)
		}
		return s.validate(schema, value)
	}
	return s.validate(schema, string(text))
}

func (s *Spec) validate(pointer string, value any) error {
	schema, err := s.schema(pointer)
	if err != nil {
		return err
	}
	if err := schema.Validate(value); err != nil {
		return errors.New(strings.Join(causes(err), "; "))
	}
	return nil
}

// causes says where a value does not fit, and never what it is: it may hold a
// credential.
func causes(err error) []string {
	invalid, ok := errors.AsType[*jsonschema.ValidationError](err)
	if !ok {
		return []string{err.Error()}
	}
	if len(invalid.Causes) == 0 {
		return []string{"/" + strings.Join(invalid.InstanceLocation, "/") + " does not fit " + invalid.SchemaURL + "/" + strings.Join(invalid.ErrorKind.KeywordPath(), "/")}
	}
	var all []string
	for _, cause := range invalid.Causes {
		all = append(all, causes(cause)...)
	}
	return all
}

// schema compiles the schema at a pointer, once.
func (s *Spec) schema(pointer string) (*jsonschema.Schema, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.schemas[pointer]; known != nil {
		return known, nil
	}
	compiled, err := s.compiler.Compile(location + "#" + (&url.URL{Fragment: pointer}).EscapedFragment())
	if err != nil {
		return nil, fmt.Errorf("schema %s: %w", pointer, err)
	}
	s.schemas[pointer] = compiled
	return compiled, nil
}

// resolve returns the pointer to what stands at a pointer, references
// followed.
func (s *Spec) resolve(pointer string) string {
	for {
		ref, ok := s.at(pointer)["$ref"].(string)
		if !ok {
			return pointer
		}
		pointer = strings.TrimPrefix(ref, "#")
	}
}

// at returns the object at a pointer, nil for what is none.
func (s *Spec) at(pointer string) object {
	at := s.doc
	for token := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		at = member(at, unescape(token))
	}
	return at
}

func member(o object, name string) object {
	m, _ := o[name].(object)
	return m
}

func escape(token string) string { return strings.NewReplacer("~", "~0", "/", "~1").Replace(token) }

func unescape(token string) string { return strings.NewReplacer("~1", "/", "~0", "~").Replace(token) }

// Transport returns base with a check of every exchange, whose outcome report
// is told when it is not as described.
func (s *Spec) Transport(base http.RoundTripper, report func(error)) http.RoundTripper {
	return &transport{s, base, report}
}

type transport struct {
	spec   *Spec
	base   http.RoundTripper
	report func(error)
}

// RoundTrip implements [http.RoundTripper].
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	e := Exchange{Method: r.Method, Target: r.URL.RequestURI(), Header: r.Header}
	if r.Body != nil {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		_ = r.Body.Close()
		e.RequestBody = body
		r = r.Clone(r.Context())
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	answer, err := t.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	if e.Body, err = io.ReadAll(answer.Body); err != nil {
		return nil, err
	}
	answer.Body = io.NopCloser(bytes.NewReader(e.Body))
	e.Status, e.AnswerHeader = answer.StatusCode, answer.Header
	if err := t.spec.Check(e); err != nil {
		t.report(err)
	}
	return answer, nil
}
