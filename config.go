package main

// The configuration: typed structs that envconfig fills, the only place that
// reads variables of call-me's own. (ci.go reads those of CI systems.)

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kelseyhightower/envconfig"
)

// prefix is that of every variable. The fields with an envconfig tag are read
// without it too; with it they win.
const prefix = "CALL_ME"

// KeyConfig is what server and client share.
type KeyConfig struct {
	APIKey     string `envconfig:"API_KEY" desc:"the API key"`
	APIKeyFile string `envconfig:"API_KEY_FILE" desc:"a file with API keys, one a line, instead of API_KEY"`
}

// ListenConfig is what serve and health share.
type ListenConfig struct {
	Port           port   `envconfig:"PORT" default:"8000" desc:"the TCP port, on all interfaces; 0: any that is free"`
	TLSCertificate string `split_words:"true" desc:"the file of the server's certificate, with those that vouch for it (PEM); empty: plain HTTP"`
}

// serverConfig is what serve reads.
type serverConfig struct {
	KeyConfig
	ListenConfig
	DB           string       `default:"call-me.db" desc:"the database file, on a local disk"`
	TTL          ttl          `desc:"how long leases last that name no ttl; 0: until released"`
	Environments environments `desc:"names and slots, such as uat:blue+green,perf:2,staging; empty: any name, one slot each"`
	Log          logForm      `default:"text" desc:"how the log on stderr looks: text or json"`

	TLSPrivateKey  string  `split_words:"true" desc:"the file of its private key (PEM)"`
	TrustedProxies proxies `split_words:"true" desc:"proxies whose X-Forwarded-For is believed: 10.0.0.1,192.168.0.0/16"`
}

// healthConfig is what health reads.
type healthConfig struct {
	ListenConfig
}

// clientConfig is what every other command reads. The fields with a flag tag
// can be given on the command line too, where a command has that flag.
type clientConfig struct {
	KeyConfig
	Host    host   `envconfig:"HOST" desc:"the server: call-me.example:8000 or https://call-me.example; without a scheme http, without a port 8000"`
	Holder  string `flag:"holder" desc:"who has the slot (default: the CI job, or user@host)"`
	Reason  string `flag:"reason" desc:"why, shown to everyone who looks"`
	Timeout span   `flag:"timeout" desc:"give up after this time, with exit code 75 (default: wait for as long as it takes)"`
	TTL     ownTTL `flag:"ttl" desc:"the lease ends this long after the grant or the last renewal; 0: when it is released"`
	Fence   number `flag:"fence" desc:"exactly the lease with this fence"`
	CAFile  string `split_words:"true" desc:"the file of the authorities that may vouch for the server (PEM), instead of the system's"`
}

// readConfig fills a configuration from the variables and checks it. An error
// names the variable that was read. An empty variable counts as unset.
func readConfig(into interface{ validate() error }) error {
	dropEmpty()
	err := envconfig.Process(prefix, into)
	var parse *envconfig.ParseError
	if errors.As(err, &parse) {
		return usagef("reading %s: %q is %v", setName(parse.KeyName), parse.Value, parse.Err)
	}
	if err != nil {
		return usagef("reading the configuration: %v", err)
	}
	return into.validate()
}

// A setting is one field of a configuration: what it is called, and what for.
type setting struct {
	flag     string // empty: it has none
	variable string
	short    string // the variable without the prefix, where that is read too
	preset   string
	usage    string
	value    reflect.Value
}

// words finds where envconfig's split_words splits a name: TLSPrivateKey.
var words = regexp.MustCompile(`([A-Z]+)([A-Z][a-z])|([a-z])([A-Z])`)

// settings lists the fields of a configuration, a pointer to a struct.
func settings(config any) []setting {
	var all []setting
	v := reflect.ValueOf(config).Elem()
	for _, field := range reflect.VisibleFields(v.Type()) {
		if field.Anonymous {
			continue
		}
		s := setting{flag: field.Tag.Get("flag"), short: field.Tag.Get("envconfig"), preset: field.Tag.Get("default"),
			usage: field.Tag.Get("desc"), value: v.FieldByIndex(field.Index)}
		s.variable = prefix + "_" + cmp.Or(s.short, strings.ToUpper(words.ReplaceAllString(field.Name, "$1${3}_$2$4")))
		all = append(all, s)
	}
	return all
}

// set reads a flag's value as the variable's would be read.
func (s setting) set(text string) error {
	target := s.value
	if d, ok := target.Addr().Interface().(envconfig.Decoder); ok {
		if err := d.Decode(text); err != nil {
			return usagef("--%s: %q is %v", s.flag, text, err)
		}
		return nil
	}
	target.SetString(text)
	return nil
}

// dropEmpty unsets our variables that are set to nothing. envconfig would
// take them for values: an empty key, a port that is no number.
func dropEmpty() {
	short := []string{"PORT", "API_KEY", "API_KEY_FILE", "HOST"}
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		if value == "" && (strings.HasPrefix(name, prefix+"_") || slices.Contains(short, name)) {
			os.Unsetenv(name)
		}
	}
}

// setName returns the name under which a variable is set: with the prefix,
// unless only the short one is.
func setName(name string) string {
	short := strings.TrimPrefix(name, prefix+"_")
	if _, set := os.LookupEnv(name); !set {
		if _, set := os.LookupEnv(short); set {
			return short
		}
	}
	return name
}

func (c *serverConfig) validate() error {
	if (c.TLSCertificate == "") != (c.TLSPrivateKey == "") {
		return usagef("%[1]s_TLS_CERTIFICATE and %[1]s_TLS_PRIVATE_KEY belong together", prefix)
	}
	_, err := c.keys()
	return err
}

func (c *healthConfig) validate() error { return nil }

func (c *clientConfig) validate() error {
	if c.Host == "" {
		return hint(usagef("HOST must be set"), "HOST=localhost:8000, the machine on which `call-me serve` runs")
	}
	_, err := c.keys()
	return err
}

// keys returns the API keys: of the file, when one is named, else the one in
// the variable. There is at least one, and none is empty.
func (c KeyConfig) keys() ([]string, error) {
	if c.APIKeyFile == "" {
		key := strings.TrimSpace(c.APIKey)
		if key == "" {
			return nil, hint(usagef("API_KEY must be set"), "API_KEY=..., the key that the server and its clients share, or API_KEY_FILE=...")
		}
		return []string{key}, nil
	}
	text, err := os.ReadFile(c.APIKeyFile)
	if err != nil {
		return nil, usagef("reading %s: %v", setName(prefix+"_API_KEY_FILE"), err)
	}
	keys := slices.DeleteFunc(strings.Split(string(text), "\n"), func(line string) bool { return strings.TrimSpace(line) == "" })
	for i := range keys {
		keys[i] = strings.TrimSpace(keys[i])
	}
	if len(keys) == 0 {
		return nil, usagef("reading %s: %q has no key", setName(prefix+"_API_KEY_FILE"), c.APIKeyFile)
	}
	return keys, nil
}

// port is a TCP port; 0: any that is free.
type port uint16

func (p *port) Decode(text string) error {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return errors.New("no port (0 to 65535)")
	}
	*p = port(n)
	return nil
}

// ttl is 0 or a duration within the limits of a lease.
type ttl time.Duration

func (t *ttl) Decode(text string) error {
	d, err := parseTTL(text)
	if err != nil {
		return fmt.Errorf("no duration such as 90s or 2h, from %v to %v, or 0", minTTL, maxTTL)
	}
	*t = ttl(d)
	return nil
}

// ownTTL is a ttl that may not have been chosen: nil. (envconfig would call
// Decode on a nil *ttl.)
type ownTTL struct{ chosen *time.Duration }

func (t *ownTTL) Decode(text string) error {
	var read ttl
	err := read.Decode(text)
	t.chosen = (*time.Duration)(&read)
	return err
}

// span is a duration that is not negative.
type span time.Duration

func (s *span) Decode(text string) error {
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return errors.New("no duration such as 90s or 30m")
	}
	*s = span(d)
	return nil
}

// number is a fence.
type number uint64

func (n *number) Decode(text string) error {
	v, err := strconv.ParseUint(text, 10, 64)
	if err != nil || v == 0 {
		return errors.New("no number that a grant told")
	}
	*n = number(v)
	return nil
}

// host is the base URL of a server, without a slash at its end.
type host string

// target matches the names of compilers' targets: HOST is also a variable of
// build tools, and conda, for one, sets it to x86_64-conda-linux-gnu.
var target = regexp.MustCompile(`^(x86_64|amd64|aarch64|arm64|i[3-6]86|ppc64le|powerpc64le|s390x|riscv64)-\w+-\w+`)

// Decode takes host, host:port and URLs; the scheme defaults to http, and
// with it the port to 8000.
func (h *host) Decode(text string) error {
	withScheme := text
	if !strings.Contains(text, "://") {
		withScheme = "http://" + text
	}
	u, err := url.Parse(withScheme)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || !isHostname(u.Hostname()) || target.MatchString(text) {
		return errors.New("no host (localhost:8000 or https://call-me.example)")
	}
	if n, err := strconv.ParseUint(u.Port(), 10, 16); u.Port() != "" && (err != nil || n == 0) {
		return errors.New("no host with a port (1 to 65535)")
	}
	if withScheme != text && u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), "8000")
	}
	*h = host(strings.TrimRight(u.String(), "/"))
	return nil
}

func isHostname(name string) bool {
	if net.ParseIP(name) != nil {
		return true
	}
	if name == "" || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		ok := label != "" && len(label) <= 63 && label[0] != '-' && label[len(label)-1] != '-'
		if !ok || strings.ContainsFunc(label, func(r rune) bool {
			return !(r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z')
		}) {
			return false
		}
	}
	return true
}

// environments are the declared ones: names in the order of the declaration,
// and the slots of each. Empty: nothing is declared, and any name has one
// slot of the same name.
type environments struct {
	names []string
	slots map[string][]string
}

// maxSlots is how many slots one environment may declare.
const maxSlots = 1000

// Decode reads uat:blue+green,perf:2,staging.
func (e *environments) Decode(text string) error {
	read := environments{slots: map[string][]string{}}
	for entry := range strings.SplitSeq(text, ",") {
		name, list, listed := strings.Cut(strings.TrimSpace(entry), ":")
		if err := checkEnvironment(name); err != nil {
			return fmt.Errorf("no list of environments: %q is no name", name)
		}
		if read.slots[name] != nil {
			return fmt.Errorf("no list of environments: %q is there twice", name)
		}
		slots := []string{name}
		if listed {
			var err error
			if slots, err = slotNames(name, list); err != nil {
				return err
			}
		}
		read.names = append(read.names, name)
		read.slots[name] = slots
	}
	*e = read
	return nil
}

func slotNames(environment, list string) ([]string, error) {
	if n, err := strconv.Atoi(list); err == nil {
		if n < 1 || n > maxSlots {
			return nil, fmt.Errorf("no list of environments: %q has %d slots (1 to %d)", environment, n, maxSlots)
		}
		slots := make([]string, n)
		for i := range slots {
			slots[i] = fmt.Sprintf("%s-%d", environment, i+1)
		}
		return slots, nil
	}
	slots := strings.Split(list, "+")
	for i, slot := range slots {
		if checkEnvironment(slot) != nil || slices.Contains(slots[:i], slot) || strings.Contains(slot, ":") || len(slots) > maxSlots {
			return nil, fmt.Errorf("no list of environments: %q of %q is no slot, or is there twice", slot, environment)
		}
	}
	return slots, nil
}

// of returns the slots of an environment; nil: it is not declared.
func (e environments) of(name string) []string {
	if len(e.names) == 0 {
		return []string{name}
	}
	return e.slots[name]
}
