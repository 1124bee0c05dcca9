package main

// What is printed of the leases of a request that was granted: one, or one for each of the
// slots that it asked for.

import "fmt"

// slotNames prints the slot of a lease on stdout; of several each with its environment, in
// the form that --slot takes, one a line.
func (t *terminal) slotNames(granted grantedJSON) error {
	if granted.Leases == nil {
		_, err := fmt.Fprintln(t.out, granted.Slot)
		return err
	}
	for _, l := range granted.Leases {
		if _, err := fmt.Fprintf(t.out, "%s=%s\n", l.Environment, l.Slot); err != nil {
			return err
		}
	}
	return nil
}

// jsonLeases prints a lease as JSON, or several as the server sends them.
func (t *terminal) jsonLeases(granted grantedJSON) error {
	if granted.Leases == nil {
		return t.json(granted.leaseJSON)
	}
	return t.json(leasesJSON{granted.Leases})
}

// grantedSentence returns what leaseSentence does; of several leases for all of them.
func grantedSentence(granted grantedJSON, options acquireOptions) string {
	first := granted.leaseJSON
	if granted.Leases == nil {
		return leaseSentence(first)
	}
	if first.Until == nil {
		return fmt.Sprintf("%s are yours until you release them: call-me release %s",
			granted.label(), options.words())
	}
	return fmt.Sprintf("%s are yours until %s (%s); for longer: call-me renew %s",
		granted.label(), clockTime(*first.Until), secondsText(first.TTLSeconds), options.words())
}
