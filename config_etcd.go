package main

// The settings of servers that share their state in etcd.

import (
	"errors"
	"net"
	"strings"

	"github.com/kelseyhightower/envconfig"
)

// An etcdURL says where etcd is, as etcd://a:2379,b:2379,c:2379/prefix, or etcds:// with TLS. The
// zero value is none.
type etcdURL struct {
	members []string // host:port
	prefix  string   // of all keys; it begins with a slash and ends without one
	isTLS   bool
}

// Decode reads such a URL. A member without a port has 2379. Without a prefix it is /call-me.
func (e *etcdURL) Decode(text string) error {
	scheme, rest, found := strings.Cut(text, "://")
	if !found || scheme != "etcd" && scheme != "etcds" {
		return errors.New("no address of etcd such as etcd://a:2379,b:2379,c:2379/call-me")
	}
	hosts, path, _ := strings.Cut(rest, "/")
	read := etcdURL{isTLS: scheme == "etcds", prefix: "/" + strings.Trim(path, "/")}
	if read.prefix == "/" {
		read.prefix = "/call-me"
	}
	for host := range strings.SplitSeq(hosts, ",") {
		name, port, err := net.SplitHostPort(host)
		if err != nil {
			name, port = strings.Trim(host, "[]"), "2379"
		}
		if name == "" || port == "" || strings.ContainsAny(name, " @?#") {
			return errors.New("no address of etcd: a member is host:port, without a user and a password")
		}
		read.members = append(read.members, net.JoinHostPort(name, port))
	}
	*e = read
	return nil
}

// String returns the URL.
func (e etcdURL) String() string {
	scheme := "etcd://"
	if e.isTLS {
		scheme = "etcds://"
	}
	return scheme + strings.Join(e.members, ",") + e.prefix
}

// isShared reports whether the server shares its state in etcd with others.
func (c *serverConfig) isShared() bool { return len(c.Store.members) > 0 }

// readMoveConfig reads the settings of etcd for a move to an address. It needs no key of the API.
func readMoveConfig(c *serverConfig, address string) error {
	dropEmpty()
	dropServiceLinks()
	if err := envconfig.Process(variablePrefix, c); err != nil {
		return usagef("reading the configuration: %v", err)
	}
	if err := c.Store.Decode(address); err != nil {
		return usagef("%q is %v", address, err)
	}
	c.Advertise = serverURLs{"http://localhost"}
	return c.validateStore()
}

// unusedDB is a warning if there is a file that the server does not use; empty if there is none. An
// image or a unit may set one.
func (c *serverConfig) unusedDB() string {
	if !c.isShared() || !isSet(variablePrefix+"_DB") {
		return ""
	}
	return "CALL_ME_DB is not used: the state is in etcd"
}

// validateStore returns a usage error if the settings of etcd do not go together.
func (c *serverConfig) validateStore() error {
	switch {
	case !c.isShared():
		return nil
	case len(c.Advertise) != 1:
		return withHint(usagef("CALL_ME_ADVERTISE must be set with CALL_ME_STORE"),
			"CALL_ME_ADVERTISE=http://a.example:8000, where the other servers reach this one")
	case (c.EtcdCertificate == "") != (c.EtcdPrivateKey == ""):
		return usagef("CALL_ME_ETCD_CERTIFICATE and CALL_ME_ETCD_PRIVATE_KEY belong together")
	case (c.EtcdUser == "") != (c.EtcdPasswordFile == ""):
		return usagef("CALL_ME_ETCD_USER and CALL_ME_ETCD_PASSWORD_FILE belong together")
	case !c.Store.isTLS && (c.EtcdCAFile != "" || c.EtcdCertificate != ""):
		return usagef("CALL_ME_ETCD_CA_FILE and CALL_ME_ETCD_CERTIFICATE are for etcds://")
	}
	return nil
}
