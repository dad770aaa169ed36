//go:build ignore

// Command translate writes what Istio's control plane makes of configuration:
// the listeners, routes, clusters and endpoints that it would send to an ingress gateway,
// or to the sidecar of a workload. It is Istio's own code, with objects from
// files instead of a cluster. It has no go.mod, because Istio is no dependency
// of Gatehouse: scripts/tools.sh istio-translate builds it in a module of its
// own.
//
//	istio-translate -out xds.json -mesh mesh.yaml -kubernetes services.yaml -istio policies.yaml
//	istio-translate … -sidecar 10.0.0.3 -namespace shop
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"istio.io/istio/pilot/pkg/model"
	"istio.io/istio/pilot/test/xds"
	"istio.io/istio/pkg/config/mesh"
	"istio.io/istio/pkg/test"
)

func main() {
	meshFile := flag.String("mesh", "", "file with the mesh configuration")
	kubernetes := flag.String("kubernetes", "", "files with Kubernetes objects, separated by commas")
	istio := flag.String("istio", "", "files with Istio objects, separated by commas")
	sidecar := flag.String("sidecar", "", "address of the pod whose sidecar is meant, instead of the gateway")
	out := flag.String("out", "", "file to write; Istio's code logs to the standard output")
	namespace := flag.String("namespace", "istio-system", "namespace of the proxy")
	proxy := flag.String("proxy", "", "file with the proxy's own configuration, as in the annotation proxy.istio.io/config")
	labels := flag.String("labels", "istio=ingressgateway", "labels of the proxy's pod")
	flag.Parse()
	err := test.Wrap(func(t test.Failer) {
		config, err := mesh.ApplyMeshConfig(read(*meshFile), mesh.DefaultMeshConfig())
		if err != nil {
			t.Fatal(err)
		}
		server := xds.NewFakeDiscoveryServer(t, xds.FakeOptions{
			MeshConfig:             config,
			KubernetesObjectString: read(*kubernetes),
			ConfigString:           read(*istio),
		})
		set := map[string]string{}
		for _, label := range strings.Split(*labels, ",") {
			name, value, _ := strings.Cut(label, "=")
			set[name] = value
		}
		p := &model.Proxy{
			Type:            model.Router,
			ConfigNamespace: *namespace,
			Labels:          set,
			Metadata:        &model.NodeMetadata{Namespace: *namespace, Labels: set},
		}
		if *sidecar != "" {
			p.Type, p.IPAddresses = model.SidecarProxy, []string{*sidecar}
		}
		if *proxy != "" {
			own, err := mesh.MergeProxyConfig(read(*proxy), config.GetDefaultConfig())
			if err != nil {
				t.Fatal(err)
			}
			p.Metadata.ProxyConfig = (*model.NodeMetaProxyConfig)(own)
		}
		p = server.SetupProxy(p)
		text, err := json.Marshal(map[string]any{
			"listeners": all(t, server.Listeners(p)),
			"routes":    all(t, server.Routes(p)),
			"clusters":  all(t, server.Clusters(p)),
			"endpoints": all(t, server.Endpoints(p)),
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(*out, text, 0o600); err != nil {
			t.Fatal(err)
		}
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func read(files string) string {
	var texts []string
	for _, file := range strings.Split(files, ",") {
		if file == "" {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		texts = append(texts, string(text))
	}
	return strings.Join(texts, "\n---\n")
}

func all[M proto.Message](t test.Failer, messages []M) []json.RawMessage {
	var texts []json.RawMessage
	for _, m := range messages {
		text, err := protojson.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, text)
	}
	return texts
}
