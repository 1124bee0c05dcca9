package main

// The configuration: typed structs that envconfig fills from the variables of call-me,
// and the table of settings from which flags and help are made. The types of the fields
// are in config_types.go. The variables of CI systems are in ci.go. Only this file
// imports envconfig.

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/kelseyhightower/envconfig"
)

// variablePrefix is the beginning of the name of every variable, before an underscore. A field
// with an envconfig tag is also read from the variable without the prefix. The one with
// the prefix has precedence.
const variablePrefix = "CALL_ME"

// KeyConfig has the settings that server and client share. It is exported because
// envconfig does not fill embedded structs of unexported types.
type KeyConfig struct {
	APIKey     string `envconfig:"API_KEY" desc:"the API key"`
	APIKeyFile string `envconfig:"API_KEY_FILE" desc:"a file with API keys, one a line, instead of API_KEY"`
}

// ListenConfig has the settings that serve and health share. It is exported for the same
// reason as KeyConfig.
type ListenConfig struct {
	Port           portNumber `envconfig:"PORT" default:"8000" desc:"the TCP port, on all interfaces; 0: any that is free"`
	TLSCertificate string     `split_words:"true" desc:"the file of the server's certificate, with those that vouch for it (PEM); empty: plain HTTP"`
}

// serverConfig has the settings of serve.
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

// healthConfig has the settings of health.
type healthConfig struct {
	ListenConfig
}

// clientConfig has the settings of the commands that call the server. A field with a flag
// tag can also be set by this flag, if the command has it.
type clientConfig struct {
	KeyConfig
	Host    serverURL           `envconfig:"HOST" desc:"the server: call-me.example:8000 or https://call-me.example; without a scheme http, without a port 8000"`
	Holder  string              `flag:"holder" desc:"who has the slot (default: the CI job, or user@host)"`
	Reason  string              `flag:"reason" desc:"why, shown to everyone who looks"`
	Timeout nonNegativeDuration `flag:"timeout" desc:"give up after this time, with exit code 75 (default: wait for as long as it takes)"`
	TTL     optionalTTL         `flag:"ttl" desc:"the lease ends this long after the grant or the last renewal; 0: when it is released"`
	Fence   fenceNumber         `flag:"fence" desc:"exactly the lease with this fence"`
	CAFile  string              `split_words:"true" desc:"the file of the authorities that may vouch for the server (PEM), instead of the system's"`
}

// readConfig fills a configuration, a pointer to a struct, from the variables and
// validates it. An empty variable counts as unset and is removed from the environment of
// the process. Its errors are usage errors. The error of a value that cannot be read
// names the variable and the value.
func readConfig(into interface{ validate() error }) error {
	dropEmpty()
	dropServiceLinks()
	err := envconfig.Process(variablePrefix, into)
	var parse *envconfig.ParseError
	if errors.As(err, &parse) {
		return usagef("reading %s: %q is %v", setName(parse.KeyName), parse.Value, parse.Err)
	}
	if err != nil {
		return usagef("reading the configuration: %v", err)
	}
	return into.validate()
}

// A setting is one field of a configuration, with its names and its help.
type setting struct {
	flag     string        // the flag without dashes; empty if there is none
	variable string        // the variable with the prefix
	short    string        // the variable without the prefix; empty if it is not read
	preset   string        // the default; empty if there is none
	usage    string        // the help
	value    reflect.Value // the field
}

// wordBoundary matches where envconfig's split_words puts an underscore: TLSPrivateKey
// becomes TLS_PRIVATE_KEY.
var wordBoundary = regexp.MustCompile(`([A-Z]+)([A-Z][a-z])|([a-z])([A-Z])`)

// listSettings returns the settings of a configuration, a pointer to a struct, in the order
// of its fields.
func listSettings(config any) []setting {
	var all []setting
	v := reflect.ValueOf(config).Elem()
	for _, field := range reflect.VisibleFields(v.Type()) {
		if field.Anonymous {
			continue
		}
		s := setting{
			flag:   field.Tag.Get("flag"),
			short:  field.Tag.Get("envconfig"),
			preset: field.Tag.Get("default"),
			usage:  field.Tag.Get("desc"),
			value:  v.FieldByIndex(field.Index),
		}
		long := strings.ToUpper(wordBoundary.ReplaceAllString(field.Name, "$1${3}_$2$4"))
		s.variable = variablePrefix + "_" + cmp.Or(s.short, long)
		all = append(all, s)
	}
	return all
}

// set sets the field to the value of a flag, which is read as that of the variable is. A
// value that cannot be read is a usage error.
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

// dropEmpty unsets the variables of call-me that are empty. envconfig would use them as
// values: an empty key, a port that is not a number.
func dropEmpty() {
	short := []string{"PORT", "API_KEY", "API_KEY_FILE", "HOST"}
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		if value == "" && (strings.HasPrefix(name, variablePrefix+"_") || slices.Contains(short, name)) {
			os.Unsetenv(name)
		}
	}
}

// setName returns the name by which a variable is set: the given one with the prefix, or
// the one without it if only that is set.
func setName(name string) string {
	short := strings.TrimPrefix(name, variablePrefix+"_")
	_, isSet := os.LookupEnv(name)
	_, isShortSet := os.LookupEnv(short)
	if !isSet && isShortSet {
		return short
	}
	return name
}

// validate returns a usage error if only one of certificate and private key is set, or
// if there is no API key. It reads the file of the keys.
func (c *serverConfig) validate() error {
	if (c.TLSCertificate == "") != (c.TLSPrivateKey == "") {
		return usagef("%[1]s_TLS_CERTIFICATE and %[1]s_TLS_PRIVATE_KEY belong together", variablePrefix)
	}
	_, err := c.keys()
	return err
}

// validate returns nil: the fields have been checked when they were read.
func (c *healthConfig) validate() error { return nil }

// validate returns a usage error if no server is set, or if there is no API key. It reads
// the file of the keys.
func (c *clientConfig) validate() error {
	if c.Host == "" {
		return withHint(usagef("HOST must be set"),
			"HOST=localhost:8000, the machine on which `call-me serve` runs")
	}
	_, err := c.keys()
	return err
}

// keys returns the API keys, without white space around them: those of the file, one a
// line, if a file is set, otherwise the one of API_KEY. Empty lines are skipped. There is
// at least one key, and none is empty. A missing key and a file that cannot be read are
// usage errors.
func (c KeyConfig) keys() ([]string, error) {
	if c.APIKeyFile == "" {
		key := strings.TrimSpace(c.APIKey)
		if key == "" {
			return nil, withHint(usagef("API_KEY must be set"),
				"API_KEY=..., the key that the server and its clients share, or API_KEY_FILE=...")
		}
		return []string{key}, nil
	}
	text, err := readKeyFile(c.APIKeyFile)
	if err != nil {
		return nil, usagef("reading %s: %v", setName(variablePrefix+"_API_KEY_FILE"), err)
	}
	var keys []string
	for line := range strings.SplitSeq(text, "\n") {
		key := strings.TrimSpace(line)
		if key != "" {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil, usagef("reading %s: %q has no key", setName(variablePrefix+"_API_KEY_FILE"), c.APIKeyFile)
	}
	return keys, nil
}

// maxKeyFile is the size of the largest file of keys, in bytes.
const maxKeyFile = 64 << 10

// readKeyFile returns the text of a file of keys, without the byte order mark that some
// editors put before it. It rejects what is not a regular file, which could make it wait
// for ever, what has more than maxKeyFile bytes, and what is not UTF-8. No error has a
// part of the file in it.
func readKeyFile(path string) (string, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil: // opening the file says why
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("%q is not a regular file", path)
	case info.Size() > maxKeyFile:
		return "", fmt.Errorf("%q has %d bytes, more than %d: it is not a file of keys",
			path, info.Size(), maxKeyFile)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0 {
		return "", fmt.Errorf("%q is not text in UTF-8", path)
	}
	return strings.TrimPrefix(string(text), "\ufeff"), nil
}
