package lint

import (
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// runtime is what the static layers of a bootstrap set, by key. It wins over
// what a filter gives as default.
type runtime map[string]runtimeValue

type runtimeValue struct {
	value *structpb.Value
	n     *node
}

func (r runtime) layers(m *bootstrapv3.LayeredRuntime, n *node) {
	for i, layer := range m.GetLayers() {
		r.add("", layer.GetStaticLayer(), n.near("layers").item(i).near("static_layer"))
	}
}

// add takes over a layer, whose keys may be nested. Later layers win.
func (r runtime) add(prefix string, s *structpb.Struct, n *node) {
	for key, value := range s.GetFields() {
		at := n.near(key)
		if inner := value.GetStructValue(); inner != nil && !isFraction(inner) {
			r.add(prefix+key+".", inner, at)
			continue
		}
		r[prefix+key] = runtimeValue{value, at}
	}
}

func isFraction(s *structpb.Struct) bool {
	return s.GetFields()["numerator"] != nil || s.GetFields()["denominator"] != nil
}

// share returns which part of requests a fraction means, and where a layer says
// so; nil where none does.
func (r runtime) share(of *corev3.RuntimeFractionalPercent) (numerator, whole uint64, at *node) {
	set, ok := r[of.GetRuntimeKey()]
	if !ok || of.GetRuntimeKey() == "" {
		return uint64(of.GetDefaultValue().GetNumerator()), denominator(of.GetDefaultValue().GetDenominator()), nil
	}
	fraction := set.value.GetStructValue()
	if fraction == nil {
		return uint64(max(0, set.value.GetNumberValue())), 100, set.n
	}
	whole = 100
	switch fraction.GetFields()["denominator"].GetStringValue() {
	case "TEN_THOUSAND":
		whole = 10_000
	case "MILLION":
		whole = 1_000_000
	}
	return uint64(max(0, fraction.GetFields()["numerator"].GetNumberValue())), whole, set.n
}

// on reads a switch, and where a layer sets it.
func (r runtime) on(flag *corev3.RuntimeFeatureFlag) (value bool, at *node) {
	if set, ok := r[flag.GetRuntimeKey()]; ok && flag.GetRuntimeKey() != "" {
		return set.value.GetBoolValue() || set.value.GetStringValue() == "true", set.n
	}
	return flag.GetDefaultValue().GetValue(), nil
}
