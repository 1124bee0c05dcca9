package main

// The configuration: typed structs that envconfig fills, the only place that
// reads variables of call-me's own. (ci.go reads those of CI systems.)

import (
	"cmp"
	"errors"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"

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
	Port           portNumber `envconfig:"PORT" default:"8000" desc:"the TCP port, on all interfaces; 0: any that is free"`
	TLSCertificate string     `split_words:"true" desc:"the file of the server's certificate, with those that vouch for it (PEM); empty: plain HTTP"`
}

// serverConfig is what serve reads.
type serverConfig struct {
	KeyConfig
	ListenConfig
	DB           string               `default:"call-me.db" desc:"the database file, on a local disk"`
	TTL          leaseTTL             `desc:"how long leases last that name no ttl; 0: until released"`
	Environments declaredEnvironments `desc:"names and slots, such as uat:blue+green,perf:2,staging; empty: any name, one slot each"`
	Log          logForm              `default:"text" desc:"how the log on stderr looks: text or json"`

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
	Host    serverURL        `envconfig:"HOST" desc:"the server: call-me.example:8000 or https://call-me.example; without a scheme http, without a port 8000"`
	Holder  string           `flag:"holder" desc:"who has the slot (default: the CI job, or user@host)"`
	Reason  string           `flag:"reason" desc:"why, shown to everyone who looks"`
	Timeout positiveDuration `flag:"timeout" desc:"give up after this time, with exit code 75 (default: wait for as long as it takes)"`
	TTL     optionalTTL      `flag:"ttl" desc:"the lease ends this long after the grant or the last renewal; 0: when it is released"`
	Fence   fenceNumber      `flag:"fence" desc:"exactly the lease with this fence"`
	CAFile  string           `split_words:"true" desc:"the file of the authorities that may vouch for the server (PEM), instead of the system's"`
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
var wordBoundary = regexp.MustCompile(`([A-Z]+)([A-Z][a-z])|([a-z])([A-Z])`)

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
		s.variable = prefix + "_" + cmp.Or(s.short, strings.ToUpper(wordBoundary.ReplaceAllString(field.Name, "$1${3}_$2$4")))
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
