package main

// The client of call-me health, which is the health check of a container.

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// health makes one call to the server on this machine, without a key, within headerTime.
// It returns nil if the server works. With a TLS certificate in the configuration it
// uses HTTPS and trusts only that certificate. Errors: those of do and healthTLS.
func health(ctx context.Context, config healthConfig) error {
	base := fmt.Sprintf("http://127.0.0.1:%d", config.Port)
	c := &client{http: http.DefaultClient}
	if config.TLSCertificate != "" {
		trust, err := healthTLS(config.TLSCertificate)
		if err != nil {
			return err
		}
		base = strings.Replace(base, "http:", "https:", 1)
		c.http = &http.Client{Transport: &http.Transport{TLSClientConfig: trust}}
	}
	c.addresses = newAddresses(serverURLs{base})
	return c.do(ctx, headerTime, http.MethodGet, "/healthz", url.Values{}, &map[string]string{})
}
