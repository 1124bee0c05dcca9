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
	"unicode"
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
	APIKeyFile string `envconfig:"API_KEY_FILE" desc:"a file with one API key per line; if both are set, the file is used"`
}

// ListenConfig has the settings that serve and health share. It is exported for the same
// reason as KeyConfig.
type ListenConfig struct {
	Port           portNumber `envconfig:"PORT" default:"8000" desc:"the TCP port, on all interfaces; 0: any that is free"`
	TLSCertificate string     `split_words:"true" desc:"the file of the server's certificate and its intermediate certificates (PEM); empty: plain HTTP"`
}

// serverConfig has the settings of serve.
type serverConfig struct {
	KeyConfig
	ListenConfig
	DB           string               `default:"call-me.db" desc:"the database file, on a local disk"`
	TTL          leaseTTL             `desc:"default lease time for API calls without ttl; 0: until released"`
	MaxHold      leaseTTL             `split_words:"true" desc:"the longest hold, also if renewed; 0: no limit"`
	Environments declaredEnvironments `desc:"names and slots, such as uat:blue+green,perf:2,staging; empty: any name, one slot each"`
	History      byteSize             `default:"64MB" desc:"the most memory for the history, 1MB to 1TB; the oldest events are deleted first"`
	Log          logForm              `default:"text" desc:"the form of the log on stderr: text or json"`

	EnvironmentsFile string `split_words:"true" desc:"a file with one environment per line; read again when it changes"`
	OIDCFile         string `split_words:"true" desc:"which job tokens are accepted (JSON); read again when it changes"`

	Webhook       string        `desc:"where events are sent: https://chat.example/...; several with commas"`
	WebhookEvents webhookEvents `split_words:"true" default:"waiting:30m,expired,forced,taken,paused,resumed,kept,expiring:10m" desc:"which events are sent"`
	WebhookSecret string        `split_words:"true" desc:"signs what is sent (HMAC-SHA256)"`

	TLSPrivateKey  string  `split_words:"true" desc:"the file of its private key (PEM)"`
	TrustedProxies proxies `split_words:"true" desc:"trusted reverse proxies; client addresses are taken from their X-Forwarded-For: 10.0.0.1,192.168.0.0/16"`

	Store     etcdURL    `desc:"where several servers share their state: etcd://a:2379,b:2379,c:2379/call-me"`
	Advertise serverURLs `desc:"where the other servers reach this one: http://a.example:8000"`
	CAFile    string     `split_words:"true" desc:"who vouches for the other servers (PEM)"`

	EtcdCAFile       string `split_words:"true" desc:"who vouches for etcd (PEM)"`
	EtcdCertificate  string `split_words:"true" desc:"the file of the certificate that etcd is shown (PEM)"`
	EtcdPrivateKey   string `split_words:"true" desc:"the file of its private key (PEM)"`
	EtcdUser         string `split_words:"true" desc:"the user of etcd"`
	EtcdPasswordFile string `split_words:"true" desc:"the file of that user's password"`
}

// healthConfig has the settings of health.
type healthConfig struct {
	ListenConfig
}

// clientConfig has the settings of the commands that call the server. A field with a flag
// tag can also be set by this flag, if the command has it.
type clientConfig struct {
	KeyConfig
	TokenConfig
	Host     serverURLs          `envconfig:"HOST" desc:"the server: call-me.example:8000 or https://call-me.example; several with commas: the next if one cannot be reached"`
	Holder   string              `flag:"holder" desc:"who has the slot (default: the CI job, or user@host)"`
	Reason   string              `flag:"reason" desc:"why, shown to everybody"`
	Priority priorityNumber      `flag:"priority" desc:"before requests of a lower one; 10 minutes earlier for each point; -100 to 100"`
	Timeout  nonNegativeDuration `flag:"timeout" desc:"give up after this time, with exit code 75 (default: wait for as long as it takes)"`
	TTL      optionalTTL         `flag:"ttl" desc:"the lease ends this long after the grant or the last renewal; 0: when it is released"`
	MaxHold  leaseTTL            `split_words:"true" flag:"max-hold" desc:"the longest hold, even if the lease is renewed"`
	Fence    fenceNumber         `flag:"fence" desc:"only the lease with this fencing token"`
	CAFile   string              `split_words:"true" desc:"CA certificate file (PEM) used to verify the server instead of the system's CAs"`
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
		name := setName(parse.KeyName)
		return copyHint(parse.Err, usagef("reading %s: %q is %v", name, parse.Value, parse.Err))
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

// validate returns a usage error if only one of certificate and private key is set, if an
// address of CALL_ME_WEBHOOK is none, or if there is no API key. It reads the files of the keys
// and of the environments.
func (c *serverConfig) validate() error {
	if (c.TLSCertificate == "") != (c.TLSPrivateKey == "") {
		return usagef("%[1]s_TLS_CERTIFICATE and %[1]s_TLS_PRIVATE_KEY belong together", variablePrefix)
	}
	if err := c.validateStore(); err != nil {
		return err
	}
	if _, err := c.environments(); err != nil {
		return err
	}
	if _, err := c.webhooks(); err != nil {
		return err
	}
	if _, err := c.oidcEntries(); err != nil {
		return err
	}
	_, err := c.acceptedKeys()
	return err
}

// validate returns nil: the fields have been checked when they were read.
func (c *healthConfig) validate() error { return nil }

// validate returns a usage error if no server is set, or if there is no API key. It reads
// the file of the keys.
func (c *clientConfig) validate() error {
	if len(c.Host) == 0 {
		return withHint(usagef("HOST must be set"),
			"HOST=localhost:8000, the machine and port of `call-me serve`")
	}
	return c.checkCredential()
}

// checkKey returns a usage error if the key cannot be sent in a header. The error names the
// variable that the key is from, and has nothing of the key.
func checkKey(variable, key string) error {
	what := "a control character"
	switch i := strings.IndexFunc(key, unicode.IsControl); {
	case i < 0:
		return nil
	case key[i] == '\n' || key[i] == '\r':
		what = "a line break"
	}
	return withHint(usagef("%s contains %s", variable, what),
		"check how it is set; several keys stand in a file, one on each line: API_KEY_FILE=...")
}

// copyHint returns an error with the hint of another one, if that has a hint.
func copyHint(from, to error) error {
	var h hinted
	if errors.As(from, &h) {
		return withHint(to, h.hint)
	}
	return to
}

// maxKeyFile is the size of the largest file of keys, in bytes.
const maxKeyFile = 64 << 10

// readTextFile returns the text of a file that the configuration names, without the byte
// order mark that some editors put before it. It rejects what is not a regular file, which
// could make it wait for ever, what has more than most bytes, and what is not UTF-8. The
// error says that it is no file of what. No error has a part of the file in it.
func readTextFile(path string, most int64, what string) (string, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil: // opening the file says why
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("%q is not a regular file", path)
	case info.Size() > most:
		return "", fmt.Errorf("%q has %d bytes, more than %d: it is not a file of %s",
			path, info.Size(), most, what)
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
