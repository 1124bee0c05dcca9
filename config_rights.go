package main

// What a caller may do: its role, the environments that it sees, and its limits. The file of
// keys has them as fields, see config_keys.go.

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A role is what a caller may do. A role may do all that the roles before it may, see
// requiredRoles.
type role int

const (
	roleView  role = iota + 1 // look
	roleJob                   // request, renew and release its own
	roleAdmin                 // what others have, pauses and backups
)

// roleNames are the roles as the file of keys and the answers name them.
var roleNames = map[role]string{roleView: "view", roleJob: "job", roleAdmin: "admin"}

// String returns the name of the role; empty for none.
func (r role) String() string { return roleNames[r] }

// rights are what a caller may do. The zero value may do and see nothing.
type rights struct {
	role         role
	environments []string      // that it sees: names, or beginnings with a "*" at their end; nil: all
	maxTTL       time.Duration // the longest ttl of its leases; zero: no limit
	maxHold      time.Duration // the longest time for which it has a slot; zero: no limit
	maxPlaces    int           // slots that all callers of its name have and wait for; zero: no limit
	maxPriority  int           // the highest priority of its requests
}

// rightsOf returns the rights of a role without limits. The requests of an admin may have any
// priority, those of others none above zero.
func rightsOf(r role) rights {
	if r == roleAdmin {
		return rights{role: r, maxPriority: maxPriority}
	}
	return rights{role: r}
}

// sees reports whether an environment exists for the caller. It stands before every answer that
// names an environment: what the caller does not see is errUndeclared, and left out of lists.
// The name everywhere, which is empty, is that of all of them: what is done to all is shown to
// everyone.
func (r rights) sees(environment string) bool {
	switch {
	case r.role == 0:
		return false
	case r.environments == nil || environment == "":
		return true
	}
	return slices.ContainsFunc(r.environments, func(pattern string) bool {
		beginning, isOpen := strings.CutSuffix(pattern, "*")
		return pattern == environment || isOpen && strings.HasPrefix(environment, beginning)
	})
}

// isLimited reports whether there may be environments that the caller does not see.
func (r rights) isLimited() bool { return r.environments != nil }

// equal reports whether two callers may do the same.
func (r rights) equal(other rights) bool {
	return r.role == other.role && slices.Equal(r.environments, other.environments) &&
		(r.environments == nil) == (other.environments == nil) &&
		r.maxTTL == other.maxTTL && r.maxHold == other.maxHold &&
		r.maxPlaces == other.maxPlaces && r.maxPriority == other.maxPriority
}

// rightFields are the names of the fields that set rights, in the order in which fields
// returns them.
var rightFields = []string{"role", "environments", "max-ttl", "max-hold", "max-places", "max-priority"}

// set sets the rights that a field of the file of keys names, but for role, on which the
// others depend: it is set first. The error says what the value must be, and has nothing of
// the value.
func (r *rights) set(field, value string) (err error) {
	switch field {
	case "environments":
		r.environments, err = parsePatterns(value)
	case "max-ttl":
		r.maxTTL, err = parseLimit(field, value)
	case "max-hold":
		r.maxHold, err = parseLimit(field, value)
	case "max-places":
		r.maxPlaces, err = strconv.Atoi(value)
		if err != nil || r.maxPlaces < 1 {
			return errors.New("max-places is no whole number from 1 on")
		}
	case "max-priority":
		var n priorityNumber
		if n.Decode(value) != nil || n < 0 {
			return fmt.Errorf("max-priority is no whole number from 0 to %d", maxPriority)
		}
		r.maxPriority = int(n)
	}
	return err
}

// parseRole returns the role of a name. The error has nothing of the name.
func parseRole(name string) (role, error) {
	for r, known := range roleNames {
		if known == name {
			return r, nil
		}
	}
	return 0, errors.New("the role is none of view, job and admin")
}

// parseLimit returns a limit of time. The error has nothing of the value.
func parseLimit(field, value string) (time.Duration, error) {
	d, err := parseTTL(value)
	if err != nil || d == 0 {
		return 0, fmt.Errorf("%s is not a duration such as 90s or 4h, from 1s to 30d", field)
	}
	return d, nil
}

// parsePatterns returns the environments of a list such as uat,perf-*. The error has nothing of
// the list.
func parsePatterns(list string) ([]string, error) {
	patterns := strings.Split(list, ",")
	for _, pattern := range patterns {
		beginning := strings.TrimSuffix(pattern, "*")
		switch {
		case pattern == "":
			return nil, errors.New("environments has an empty name")
		case strings.Contains(beginning, "*"):
			return nil, errors.New(`environments has a "*" that is not at the end of a name`)
		case beginning != "" && checkEnvironment(beginning) != nil:
			return nil, errors.New("environments has a name that no environment can have")
		}
	}
	return patterns, nil
}

// fields returns the rights as the fields of a line in the file of keys, such as role=job and
// max-ttl=4h. Limits that there are not have no field.
func (r rights) fields() []string {
	all := []string{"role=" + r.role.String()}
	add := func(isSet bool, name, value string) {
		if isSet {
			all = append(all, name+"="+value)
		}
	}
	add(r.environments != nil, "environments", strings.Join(r.environments, ","))
	add(r.maxTTL > 0, "max-ttl", durationText(r.maxTTL))
	add(r.maxHold > 0, "max-hold", durationText(r.maxHold))
	add(r.maxPlaces > 0, "max-places", strconv.Itoa(r.maxPlaces))
	add(r.maxPriority != rightsOf(r.role).maxPriority, "max-priority", strconv.Itoa(r.maxPriority))
	return all
}
