package lint

import (
	"slices"
	"strings"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// read sorts the documents of a file by what they are.
func (l *linter) read(s Source, docs *documents, loose *gateway, istio *mesh, eg *envoyGateway) {
	f := &file{name: s.Name, line: 1, column: 1, strange: len(docs.roots) == 0, empty: len(docs.roots) == 0}
	l.files = append(l.files, f)
	for i, doc := range docs.roots {
		if i == 0 {
			f.line, f.column = doc.line, doc.column
		}
		helpers, others := len(f.helpers), len(f.others)
		known := l.document(doc, s.Data, loose, istio, eg)
		f.known += known
		if known > 0 || len(f.helpers) > helpers || len(f.others) > others {
			continue
		}
		if mayBeValues(doc) {
			f.others = append(f.others, "Helm values")
		} else {
			f.strange = true
		}
	}
	for _, d := range docs.duplicates {
		line, _ := d.first.place()
		l.report(codeTwice, d.last, "%s is given twice in one mapping, first on line %d; the last one counts and nobody says so.", d.last.name, line)
	}
	for _, n := range docs.merges {
		if root := n.root(); f.known > 0 && !isKubernetes(root) && root.at("extensionProviders") == nil && root.at("meshConfig") == nil {
			l.report(codeMerge, n, "Envoy knows no merge keys (<<) and refuses the file; they were resolved here.")
		}
	}
}

// file is what was found in a source as a whole.
type file struct {
	name         string
	line, column int
	known        int      // things that are judged
	helpers      []helper // things by which others are judged
	others       []string // kinds of what is not looked at
	strange      bool     // something is there that is neither
	empty        bool
}

// helper says something about what is in other files.
type helper int

const (
	helpsIstio helper = iota
	helpsEnvoyGateway
)

// helps notes that the file that is being read has something by which others are
// judged.
func (l *linter) helps(h helper) {
	f := l.files[len(l.files)-1]
	f.helpers = append(f.helpers, h)
}

// unknown reports files of which nothing was looked at. Beside files that were,
// objects and values about something else are worth a note only.
func (l *linter) unknown(istio *mesh, eg *envoyGateway) {
	judged := slices.ContainsFunc(l.files, func(f *file) bool { return f.known > 0 })
	for _, f := range l.files {
		at := Finding{File: f.name, Line: f.line, Column: f.column}
		helped := slices.ContainsFunc(f.helpers, func(h helper) bool {
			return h == helpsIstio && istio.asks() || h == helpsEnvoyGateway && eg.asks()
		})
		slices.Sort(f.others)
		switch {
		case f.empty:
			at.Message = "The file is empty."
			l.add(codeUnknown, at)
		case f.known > 0:
		case !judged || f.strange:
			at.Message = "Nothing here is a gateway's configuration that this program knows."
			l.add(codeUnknown, at)
		case helped:
		case len(f.others) > 0:
			at.Message = "Nothing here is about the check, as far as this program knows: " + some(slices.Compact(f.others)) + "."
			l.add(codeUnread, at)
		default:
			at.Message = "No policy in these files says that requests are checked, so nothing here is looked at."
			l.add(codeUnread, at)
		}
	}
}

// mayBeValues reports whether a document can be the values of a Helm chart: a
// mapping, and none of the forms that this program knows with a letter wrong.
func mayBeValues(n *node) bool {
	return n.isMapping() && n.at("@type") == nil && !slices.ContainsFunc(n.fields, func(f *node) bool {
		return nearest(f.name, []string{
			"static_resources", "staticresources", "dynamic_resources", "dynamicresources", "virtual_hosts", "virtualhosts",
			"filter_chains", "filterchains", "load_assignment", "loadassignment",
			"meshconfig", "extensionproviders", "extension_providers", "apiversion",
		}) != ""
	})
}

// document reads one document and returns how many things in it are known.
func (l *linter) document(n *node, text []byte, loose *gateway, istio *mesh, eg *envoyGateway) int {
	switch {
	case n.shape == listShape:
		known := 0
		for _, item := range n.items {
			known += l.document(item, text, loose, istio, eg)
		}
		return known
	case n.shape != mappingShape:
		return 0
	case isKubernetes(n):
		return l.kubernetes(n, text, loose, istio, eg)
	case n.at("meshConfig").isMapping(): // Helm values
		istio.config(n.at("meshConfig"))
		return 1
	case n.either("extensionProviders", "extension_providers") != nil:
		istio.config(n)
		return 1
	case n.either("static_resources", "staticResources") != nil, n.either("dynamic_resources", "dynamicResources") != nil,
		n.at("admin").isMapping():
		l.bootstrap(n)
		return 1
	case n.at("configs").isList():
		l.dump(n)
		return 1
	case n.at("@type") != nil:
		return l.typed(n, loose)
	case n.at("resources").isList():
		return l.discovery(n, loose)
	}
	if known := l.untyped(n, loose); known > 0 {
		return known
	}
	if l.annotations(n.at("podAnnotations"), text, istio) { // Helm values of a gateway
		l.helps(helpsIstio)
		return 0
	}
	if known := istio.subcharts(n); known > 0 {
		return known
	}
	return l.dumpsBelow(n, 3)
}

// dumpsBelow reads dumps below names, as egctl writes them: xds, the gateway,
// then the dump.
func (l *linter) dumpsBelow(n *node, levels int) int {
	known := 0
	for _, f := range n.fields {
		switch {
		case !f.isMapping():
		case f.at("configs").isList():
			l.dump(f)
			known++
		case strings.Contains(f.at("@type").string(), "/envoy.admin.v3."):
			known += l.typed(f, newGateway())
		case levels > 1:
			known += l.dumpsBelow(f, levels-1)
		}
	}
	return known
}

func (n *node) isList() bool { return n != nil && n.shape == listShape }

func (n *node) isMapping() bool { return n != nil && n.shape == mappingShape }

// either returns the value of the first key that is there.
func (n *node) either(keys ...string) *node {
	for _, key := range keys {
		if value := n.at(key); value != nil {
			return value
		}
	}
	return nil
}

func isKubernetes(n *node) bool { return n.at("apiVersion") != nil && n.at("kind") != nil }

// kubernetes reads an object. Objects that have nothing to do with a gateway are
// nobody's business here.
func (l *linter) kubernetes(n *node, text []byte, loose *gateway, istio *mesh, eg *envoyGateway) int {
	group, _, _ := strings.Cut(n.at("apiVersion").string(), "/")
	kind := n.at("kind").string()
	for _, pod := range []*node{n, n.at("spec", "template")} {
		if l.annotations(pod.at("metadata", "annotations"), text, istio) {
			l.helps(helpsIstio)
		}
	}
	other := func() int {
		f := l.files[len(l.files)-1]
		f.others = append(f.others, kind)
		return 0
	}
	switch {
	case strings.HasSuffix(kind, "List") && n.at("items") != nil:
		known := 0
		if len(n.at("items").list()) == 0 {
			return other()
		}
		for _, item := range n.at("items").list() {
			if item.isMapping() && isKubernetes(item) {
				known += l.kubernetes(item, text, loose, istio, eg)
			}
		}
		return known
	case group == "security.istio.io" && kind == "AuthorizationPolicy":
		istio.policies = append(istio.policies, n)
	case kind == "IstioOperator":
		if config := n.at("spec", "meshConfig"); config != nil {
			istio.config(config)
		}
	case kind == "Istio" && n.at("spec", "values", "meshConfig") != nil: // the Sail operator's
		istio.config(n.at("spec", "values", "meshConfig"))
	case kind == "ConfigMap" && n.at("data", "mesh") != nil:
		l.meshConfigMap(n.at("data", "mesh"), text, istio)
	case kind == "ConfigMap":
		if known := l.configMap(n, text, loose, istio, eg); known > 0 {
			return known
		}
		return other()
	case group == "networking.istio.io" && kind == "EnvoyFilter", group == "gateway.envoyproxy.io" && (kind == "EnvoyPatchPolicy" || kind == "EnvoyExtensionPolicy"):
		l.report(codeUnread, n, "%s changes what Envoy does, and is not looked at; lint what comes out of it, Envoy's config_dump.", kind)
	case group == "gateway.envoyproxy.io" && kind == "SecurityPolicy":
		eg.policies = append(eg.policies, n)
	case group == "gateway.envoyproxy.io" && kind == "ClientTrafficPolicy":
		eg.clients = append(eg.clients, n)
	case group == "networking.istio.io" && kind == "VirtualService":
		istio.services = append(istio.services, n)
		l.helps(helpsIstio)
		return 0
	case group == "networking.istio.io" && kind == "Gateway":
		istio.gateways = append(istio.gateways, n)
		l.helps(helpsIstio)
		return 0
	case group == "gateway.networking.k8s.io" && (kind == "HTTPRoute" || kind == "GRPCRoute"):
		eg.routes = append(eg.routes, n)
		l.helps(helpsEnvoyGateway)
		return 0
	default:
		return other()
	}
	return 1
}

// configMap reads the files in a ConfigMap, of which one may be Envoy's.
func (l *linter) configMap(n *node, text []byte, loose *gateway, istio *mesh, eg *envoyGateway) int {
	known := 0
	for _, file := range n.at("data").fieldsOf() {
		if file.shape != stringShape || !strings.Contains(file.text, "\n") {
			continue
		}
		if !strings.Contains(file.text, "_resources") && !strings.Contains(file.text, "@type") {
			continue
		}
		for _, doc := range l.inner(file, text) {
			if doc.isMapping() && !isKubernetes(doc) {
				known += l.document(doc, text, loose, istio, eg)
			}
		}
	}
	return known
}

func (n *node) fieldsOf() []*node {
	if n == nil {
		return nil
	}
	return n.fields
}

func (l *linter) meshConfigMap(n *node, text []byte, istio *mesh) {
	for _, doc := range l.inner(n, text) {
		istio.config(doc)
	}
}

// inner parses the text of a scalar as a file in the file, and gives its nodes
// their places in the outer one where these are known: in a literal block.
func (l *linter) inner(n *node, text []byte) []*node {
	docs, err := parse("", []byte(n.text))
	if err != nil {
		l.report(codeSyntax, n, "What is in %s is no valid YAML: %v.", n.name, err)
		return nil
	}
	line, column, known := 0, 0, false
	if n.block {
		line, known = n.line, true
		if lines := strings.SplitN(string(text), "\n", n.line+2); len(lines) > n.line {
			column = len(lines[n.line]) - len(strings.TrimLeft(lines[n.line], " "))
		}
	}
	for _, root := range docs.roots {
		root.shift(line, column, known, n)
		root.parent, root.index = n, 0
		root.name = ""
	}
	return docs.roots
}

// shift moves the places of a document into the file around it.
func (n *node) shift(line, column int, known bool, at *node) {
	if known {
		n.line, n.column = n.line+line, n.column+column
		if n.keyLine > 0 {
			n.keyLine, n.keyColumn = n.keyLine+line, n.keyColumn+column
		}
	} else {
		n.line, n.column = at.line, at.column
		n.keyLine, n.keyColumn = 0, 0
	}
	for _, f := range n.fields {
		f.shift(line, column, known, at)
	}
	for _, item := range n.items {
		item.shift(line, column, known, at)
	}
}

// bootstrap reads the file that Envoy starts with.
func (l *linter) bootstrap(n *node) {
	m := new(bootstrapv3.Bootstrap)
	l.decode(n, m)
	g := newGateway()
	g.bootstrap(m, n)
	// What a management server or another file adds is not here.
	dynamic := m.GetDynamicResources()
	if len(g.listeners) == 0 && (dynamic.GetLdsConfig() != nil || dynamic.GetLdsResourcesLocator() != "") {
		l.report(codeElsewhere, n.near("dynamic_resources", "lds_config"), "The listeners are not in these files.")
	}
	g.allClusters = dynamic.GetCdsConfig() == nil && dynamic.GetAdsConfig() == nil && dynamic.GetCdsResourcesLocator() == ""
	l.gateway(g)
}

func (g *gateway) bootstrap(m *bootstrapv3.Bootstrap, n *node) {
	g.admin, g.adminNode = m.GetAdmin(), n.at("admin")
	g.runtime.layers(m.GetLayeredRuntime(), n.near("layered_runtime"))
	resources := n.at("static_resources")
	for i, listener := range m.GetStaticResources().GetListeners() {
		g.listeners = append(g.listeners, listenerAt{listener, resources.at("listeners").item(i)})
	}
	for i, cluster := range m.GetStaticResources().GetClusters() {
		g.addCluster(cluster, resources.at("clusters").item(i))
	}
}

// dump reads what /config_dump shows: the bootstrap, and what is in use now.
func (l *linter) dump(n *node) {
	m := new(adminv3.ConfigDump)
	l.decode(n, m)
	d := newDumped()
	for i, config := range m.GetConfigs() {
		d.add(config, n.at("configs").item(i))
	}
	l.gateway(d.whole())
}

// dumped collects the sections of a dump.
type dumped struct {
	*gateway
	start     *bootstrapv3.Bootstrap
	startNode *node
}

func newDumped() *dumped { return &dumped{gateway: newGateway()} }

// whole returns the gateway when all sections are there.
func (d *dumped) whole() *gateway {
	switch {
	case d.start != nil && len(d.listeners) == 0 && len(d.tables) == 0:
		d.bootstrap(d.start, d.startNode)
	case d.start != nil:
		d.admin, d.adminNode = d.start.GetAdmin(), d.startNode.at("admin")
		d.runtime.layers(d.start.GetLayeredRuntime(), d.startNode.near("layered_runtime"))
	}
	return d.gateway
}

func (d *dumped) add(config *anypb.Any, at *node) {
	switch c := message(config).(type) {
	case *adminv3.BootstrapConfigDump:
		d.start, d.startNode = c.GetBootstrap(), at.near("bootstrap")
	case *adminv3.ListenersConfigDump:
		for i, one := range c.GetStaticListeners() {
			d.addListener(one.GetListener(), at.at("static_listeners").item(i).near("listener"))
		}
		for i, one := range c.GetDynamicListeners() {
			d.addListener(one.GetActiveState().GetListener(), at.at("dynamic_listeners").item(i).near("active_state", "listener"))
		}
	case *adminv3.ListenersConfigDump_StaticListener:
		d.addListener(c.GetListener(), at.near("listener"))
	case *adminv3.ListenersConfigDump_DynamicListener:
		d.addListener(c.GetActiveState().GetListener(), at.near("active_state", "listener"))
	case *adminv3.RoutesConfigDump:
		for i, one := range c.GetStaticRouteConfigs() {
			d.addRoutes(one.GetRouteConfig(), at.at("static_route_configs").item(i).near("route_config"), true)
		}
		for i, one := range c.GetDynamicRouteConfigs() {
			d.addRoutes(one.GetRouteConfig(), at.at("dynamic_route_configs").item(i).near("route_config"), false)
		}
	case *adminv3.RoutesConfigDump_DynamicRouteConfig:
		d.addRoutes(c.GetRouteConfig(), at.near("route_config"), false)
	case *adminv3.ClustersConfigDump:
		d.allClusters = true // there were no others at that moment
		for i, one := range c.GetStaticClusters() {
			d.addAnyCluster(one.GetCluster(), at.at("static_clusters").item(i).near("cluster"))
		}
		for i, one := range c.GetDynamicActiveClusters() {
			d.addAnyCluster(one.GetCluster(), at.at("dynamic_active_clusters").item(i).near("cluster"))
		}
	case *adminv3.ClustersConfigDump_StaticCluster:
		d.addAnyCluster(c.GetCluster(), at.near("cluster"))
	case *adminv3.ClustersConfigDump_DynamicCluster:
		d.addAnyCluster(c.GetCluster(), at.near("cluster"))
	case *adminv3.EcdsConfigDump:
		for i, one := range c.GetEcdsFilters() {
			d.addFilter(one.GetEcdsFilter(), at.at("ecds_filters").item(i).near("ecds_filter"))
		}
	}
}

// discovery reads the answer of a management server, which is also the form of
// the files that Envoy watches.
func (l *linter) discovery(n *node, loose *gateway) int {
	delta := false
	for _, item := range n.at("resources").list() {
		delta = delta || item.at("resource") != nil && item.at("@type") == nil
	}
	known := 0
	if delta {
		m := new(discoveryv3.DeltaDiscoveryResponse)
		l.decode(n, m)
		for i, r := range m.GetResources() {
			known += loose.add(r.GetResource(), n.at("resources").item(i).near("resource"))
		}
		return known
	}
	m := new(discoveryv3.DiscoveryResponse)
	l.decode(n, m)
	for i, r := range m.GetResources() {
		known += loose.add(r, n.at("resources").item(i))
	}
	return known
}

// typed reads a resource that says what it is.
func (l *linter) typed(n *node, loose *gateway) int {
	name := n.at("@type").string()
	switch name[strings.LastIndexByte(name, '/')+1:] {
	case "envoy.config.bootstrap.v3.Bootstrap":
		l.bootstrap(n)
		return 1
	case "envoy.admin.v3.ConfigDump":
		l.dump(n)
		return 1
	case "envoy.service.discovery.v3.DiscoveryResponse", "envoy.service.discovery.v3.DeltaDiscoveryResponse":
		return l.discovery(n, loose)
	}
	a := new(anypb.Any)
	l.decode(n, a)
	if strings.HasPrefix(n.typeName, "envoy.admin.v3.") { // one section of a dump
		if n.unread {
			return 0
		}
		d := newDumped()
		d.add(a, n)
		l.gateway(d.whole())
		return 1
	}
	return loose.add(a, n)
}

// untyped reads a resource by what fields it has.
func (l *linter) untyped(n *node, loose *gateway) int {
	switch {
	case n.either("filter_chains", "filterChains", "default_filter_chain", "defaultFilterChain", "api_listener", "apiListener") != nil:
		m := new(listenerv3.Listener)
		l.decode(n, m)
		loose.listeners = append(loose.listeners, listenerAt{m, n})
	case n.either("virtual_hosts", "virtualHosts") != nil:
		m := new(routev3.RouteConfiguration)
		l.decode(n, m)
		loose.addRouteConfiguration(m, n, false)
	case n.either("load_assignment", "loadAssignment", "connect_timeout", "connectTimeout", "eds_cluster_config", "edsClusterConfig", "lb_policy", "lbPolicy") != nil:
		m := new(clusterv3.Cluster)
		l.decode(n, m)
		loose.addCluster(m, n)
	default:
		return 0
	}
	return 1
}

// add puts a resource of any type to the others, and returns 1 when it knows it.
func (g *gateway) add(a *anypb.Any, n *node) int {
	switch m := message(a).(type) {
	case *discoveryv3.Resource:
		return g.add(m.GetResource(), n.near("resource"))
	case *listenerv3.Listener:
		g.listeners = append(g.listeners, listenerAt{m, n})
	case *routev3.RouteConfiguration:
		g.addRouteConfiguration(m, n, false)
	case *clusterv3.Cluster:
		g.addCluster(m, n)
	default:
		// Endpoints, secrets and what we don't know say nothing about the check.
		if !slices.Contains([]string{
			"envoy.config.endpoint.v3.ClusterLoadAssignment", "envoy.extensions.transport_sockets.tls.v3.Secret",
			"envoy.service.runtime.v3.Runtime",
		}, n.typeName) {
			return 0
		}
	}
	return 1
}
