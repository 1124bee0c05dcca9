package main

// The types of the configuration's fields. Each has a method Decode, which envconfig and
// setting.set call with the text of a variable or a flag. The error of Decode continues
// the sentence "VALUE is ...".

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// A logForm is the form of the server's log.
type logForm string

const (
	logText logForm = "text"
	logJSON logForm = "json"
)

// Decode reads text or json.
func (f *logForm) Decode(text string) error {
	*f = logForm(text)
	if *f != logText && *f != logJSON {
		return errors.New("neither text nor json")
	}
	return nil
}

// A byteSize is a number of bytes.
type byteSize int64

// The range of a byteSize that can be set.
const (
	minByteSize byteSize = 1e6
	maxByteSize byteSize = 1e12
)

// byteUnits are the units of a byteSize by their names in lower case, without the B.
var byteUnits = map[string]float64{"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12,
	"ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40}

// Decode reads a number with a unit, such as 64MB, 1.5GB, 512MiB, 512Mi or 64m. Upper and
// lower case are the same, and the B may be left out.
func (b *byteSize) Decode(text string) error {
	unitAt := strings.LastIndexAny(text, "0123456789") + 1
	unit := strings.TrimSuffix(strings.ToLower(strings.TrimSpace(text[unitAt:])), "b")
	n, err := strconv.ParseFloat(text[:unitAt], 64)
	factor, known := byteUnits[unit]
	size := n * factor
	if err != nil || !known || !(size >= float64(minByteSize) && size <= float64(maxByteSize)) {
		return errors.New("no size such as 64MB or 1GB (1MB to 1TB)")
	}
	*b = byteSize(size)
	return nil
}

// String returns the size with a unit, rounded to at most one digit after the point.
func (b byteSize) String() string {
	n, unit := float64(b), 0
	for n >= 1e3 && unit < 4 {
		n, unit = n/1e3, unit+1
	}
	text := strings.TrimSuffix(strconv.FormatFloat(n, 'f', 1, 64), ".0")
	return text + []string{"B", "kB", "MB", "GB", "TB"}[unit]
}

// proxies are the addresses whose X-Forwarded-For header the server believes.
type proxies []netip.Prefix

// Decode reads addresses and networks, such as 10.0.0.1,192.168.0.0/16. An IPv4 address
// in the form of IPv6 is read as the IPv4 address.
func (p *proxies) Decode(text string) error {
	*p = nil
	for entry := range strings.SplitSeq(text, ",") {
		entry = strings.TrimSpace(entry)
		prefix, err := netip.ParsePrefix(entry)
		if a, errAddress := netip.ParseAddr(entry); errAddress == nil {
			prefix, err = a.Unmap().Prefix(a.Unmap().BitLen())
		}
		if err != nil {
			return errors.New("no list of addresses such as 10.0.0.1,192.168.0.0/16")
		}
		*p = append(*p, prefix.Masked())
	}
	return nil
}

// has reports whether one of the prefixes contains the address.
func (p proxies) has(a netip.Addr) bool {
	for _, prefix := range p {
		if prefix.Contains(a) {
			return true
		}
	}
	return false
}

// A portNumber is a TCP port. Zero stands for any port that is free.
type portNumber uint16

// Decode reads a number from 0 to 65535.
func (p *portNumber) Decode(text string) error {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return errors.New("no port (0 to 65535)")
	}
	*p = portNumber(n)
	return nil
}

// A leaseTTL is the ttl of a lease, from minTTL to maxTTL. Zero is a lease without end.
type leaseTTL time.Duration

// Decode reads a duration as parseTTL does.
func (t *leaseTTL) Decode(text string) error {
	d, err := parseTTL(text)
	*t = leaseTTL(d)
	return err
}

// An optionalTTL is a ttl, or nil if none was set. It is a struct because envconfig would
// call Decode on a nil *leaseTTL.
type optionalTTL struct{ chosen *time.Duration }

// Decode reads a leaseTTL.
func (t *optionalTTL) Decode(text string) error {
	var read leaseTTL
	err := read.Decode(text)
	t.chosen = (*time.Duration)(&read)
	return err
}

// A nonNegativeDuration is a duration that is zero or more.
type nonNegativeDuration time.Duration

// Decode reads a duration as parseDuration does.
func (p *nonNegativeDuration) Decode(text string) error {
	d, err := parseDuration(text)
	*p = nonNegativeDuration(d)
	return err
}

// A priorityNumber is the priority of a request, from -maxPriority to maxPriority.
type priorityNumber int

// Decode reads a whole number.
func (p *priorityNumber) Decode(text string) error {
	n, err := strconv.Atoi(text)
	if err != nil || n < -maxPriority || n > maxPriority {
		return fmt.Errorf("not a whole number from -%d to %d", maxPriority, maxPriority)
	}
	*p = priorityNumber(n)
	return nil
}

// A fenceNumber is the fence of a lease, or zero if none was set.
type fenceNumber uint64

// Decode reads a number that is greater than zero.
func (n *fenceNumber) Decode(text string) error {
	v, err := strconv.ParseUint(text, 10, 64)
	if err != nil || v == 0 {
		return errors.New("not a fencing token: use the number printed by request --json, " +
			"for example 1785312000001")
	}
	*n = fenceNumber(v)
	return nil
}
