//go:build helm

package tests

// What the chart of deploy/helm makes of its values. .ci/helm builds helm, and "known", which
// refuses objects with a field that Kubernetes does not know.

import (
	"bytes"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// chart returns the objects that the chart makes, by their kinds, or what it says.
func chart(t *testing.T, values string) (objects map[string]string, said string) {
	t.Helper()
	cmd := exec.Command("helm", "template", "call-me", "deploy/helm/call-me", "--namespace", "ci", "--kube-version", "1.34.0", "--values", "-")
	cmd.Stdin = strings.NewReader(values)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, stderr.String()
	}
	known := exec.Command("known")
	known.Stdin = bytes.NewReader(out)
	if said, err := known.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, said)
	}
	objects = map[string]string{}
	for object := range strings.SplitSeq("\n"+string(out), "\n---\n") {
		if kind := regexp.MustCompile(`(?m)^kind: (\w+)`).FindStringSubmatch(object); kind != nil {
			objects[kind[1]] = object
		}
	}
	return objects, ""
}

const existing = "keys: {existingSecret: team-keys}\n"

const everything = `
keys: {text: "first-key name=shop\nsecond-key\n"}
environments: |
  uat: blue + green   url=https://uat.example owner=#shop
  perf:2
oidc: '[{"issuer": "https://issuer.example"}]'
env: {CALL_ME_MAX_HOLD: 4h, CALL_ME_TTL: 0}
envFrom: [{secretRef: {name: webhook}}]
tls: {existingSecret: certificate}
persistence: {size: 5Gi, storageClass: fast}
ingress: {enabled: true, className: nginx, host: locks.example}
serviceMonitor: {enabled: true, labels: {release: prometheus}}
networkPolicy: {enabled: true, from: [{podSelector: {}}]}
tolerations: [{key: ci, operator: Exists}]
podAnnotations: {a: b}
imagePullSecrets: [{name: registry}]
`

func TestTheChartMakesWhatItsValuesSay(t *testing.T) {
	for _, c := range []struct {
		name, values string
		kinds        string // in the order of the alphabet
		has          map[string][]string
		hasNot       map[string][]string
	}{
		{"the least", existing, "Service StatefulSet", map[string][]string{
			"StatefulSet": {"replicas: 1 #", "secretName: team-keys", "accessModes: [ReadWriteOnce]", "terminationGracePeriodSeconds: 15", "runAsNonRoot: true",
				"- {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 30}",
				"- {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 30}",
				"memory: 512Mi", "readOnlyRootFilesystem: true", "{name: CALL_ME_API_KEY_FILE, value: /keys/keys}", "automountServiceAccountToken: false"},
		}, map[string][]string{"StatefulSet": {"CALL_ME_STORE", "ENVIRONMENTS", "OIDC", "TLS", "subPath: "}}},
		{"everything", everything, "ConfigMap Ingress NetworkPolicy Secret Service ServiceMonitor StatefulSet", map[string][]string{
			"Secret":         {"  keys: |\n    first-key name=shop\n    second-key"},
			"ConfigMap":      {"    uat: blue + green   url=https://uat.example owner=#shop\n    perf:2", `    [{"issuer": "https://issuer.example"}]`},
			"Ingress":        {"ingressClassName: nginx", `- {hosts: ["locks.example"], secretName: call-me-tls}`, `proxy-read-timeout: "310"`},
			"NetworkPolicy":  {"policyTypes: [Ingress]", "{port: http, protocol: TCP}", "- podSelector: {}"},
			"ServiceMonitor": {"jobLabel: app.kubernetes.io/name", "release: prometheus", "scheme: https", "key: password"},
			"StatefulSet": {"secretName: call-me}", "value: /config/environments", "value: /config/oidc.json", "value: /tls/tls.crt", `{name: CALL_ME_TTL, value: "0"}`, "storage: 5Gi",
				"storageClassName: fast", "scheme: HTTPS", "name: webhook", "key: ci", "configMap: {name: call-me}"},
		}, nil},
		{"a claim that is there", existing + "persistence: {existingClaim: old}\n", "Service StatefulSet",
			map[string][]string{"StatefulSet": {"persistentVolumeClaim: {claimName: old}"}}, map[string][]string{"StatefulSet": {"volumeClaimTemplates"}}},
		{"a store", existing + "store: etcd://etcd:2379\nnetworkPolicy: {enabled: true, from: [{ipBlock: {cidr: 10.0.0.0/8}}]}\n", "Deployment NetworkPolicy PodDisruptionBudget Service", map[string][]string{
			"NetworkPolicy":       {"cidr: 10.0.0.0/8", "- podSelector: # the servers pass calls on to each other"},
			"Deployment":          {"replicas: 2", "type: RollingUpdate", `{name: CALL_ME_STORE, value: "etcd://etcd:2379"}`, `{name: CALL_ME_DB, value: ""}`, `{name: CALL_ME_ADVERTISE, value: "$(POD_IP)"}`, "fieldPath: status.podIP", "topologyKey: kubernetes.io/hostname", "tolerationSeconds: 30", "{name: tmp, mountPath: /tmp}", "emptyDir: {}"},
			"PodDisruptionBudget": {"maxUnavailable: 1"},
		}, map[string][]string{"Deployment": {"volumeClaimTemplates", "persistentVolumeClaim", "/data", "serviceName"}}},
	} {
		objects, said := chart(t, c.values)
		var kinds []string
		for kind, object := range objects {
			kinds = append(kinds, kind)
			if !strings.Contains(object, "  name: call-me\n  namespace: ci\n") {
				t.Errorf("%s: %s has another name:\n%s", c.name, kind, object)
			}
		}
		if got := strings.Join(slices.Sorted(slices.Values(kinds)), " "); got != c.kinds {
			t.Errorf("%s: %s, want %s\n%s", c.name, got, c.kinds, said)
		}
		for kind, texts := range c.has {
			for _, text := range texts {
				if !strings.Contains(objects[kind], text) {
					t.Errorf("%s: %s has no %s", c.name, kind, text)
				}
			}
		}
		for kind, texts := range c.hasNot {
			for _, text := range texts {
				if strings.Contains(objects[kind], text) {
					t.Errorf("%s: %s has %s", c.name, kind, text)
				}
			}
		}
	}
}

func TestTheChartRefusesWhatCannotWork(t *testing.T) {
	for values, want := range map[string]string{
		"{}":                                 "set keys.existingSecret to a Secret with the entry keys, or keys.text",
		"keys: {existingSecret: a, text: b}": "not both",
		existing + "stoer: etcd://etcd\n":    "'stoer' not allowed",
		existing + "store: etcd://etcd\ntls: {existingSecret: a}\n": "end TLS at the Ingress",
		existing + "environments: [uat]\n":                          "want string",
	} {
		if _, said := chart(t, values); !strings.Contains(said, want) {
			t.Errorf("%s: %q, want %q", values, said, want)
		}
	}
}

func TestTheChartsObjectsAreRefusedWithAnUnknownField(t *testing.T) {
	for object, field := range map[string]string{
		"apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {prots: []}\n":                                              "spec.prots",
		"apiVersion: monitoring.coreos.com/v1\nkind: ServiceMonitor\nmetadata: {name: a}\nspec: {endpoints: [{prot: http}]}\n": "spec.endpoints[0].prot",
	} {
		known := exec.Command("known")
		known.Stdin = strings.NewReader(object)
		if said, err := known.CombinedOutput(); err == nil || !strings.Contains(string(said), `unknown field "`+field+`"`) {
			t.Errorf("%v: %s", err, said)
		}
	}
}
