package tests

import (
	"net/http"
	"sync"

	"go.etcd.io/bbolt"
)

// What the benchmarks compare call-me with: servers with less in them, each a
// process of its own that is the test binary.

// floorHandler answers the calls of 2019 from a map.
func floorHandler() http.HandlerFunc {
	var mu sync.Mutex
	held := map[string]bool{}
	return func(w http.ResponseWriter, r *http.Request) {
		name, status := r.URL.Query().Get("environment"), http.StatusOK
		mu.Lock()
		switch {
		case r.Method == http.MethodDelete:
			delete(held, name)
			status = http.StatusNoContent
		case held[name]:
			status = http.StatusForbidden
		case r.Method == http.MethodPost:
			held[name], status = true, http.StatusCreated
		}
		mu.Unlock()
		w.WriteHeader(status)
	}
}

// rivalCommand is the argument that makes the test binary a rival.
const rivalCommand = "rival"

// rival serves the floor or the bare server, and never returns. Its arguments:
// which one, the address, and a file for bbolt.
func rival(args []string) {
	h := http.Handler(floorHandler())
	if args[0] == "bare" {
		var err error
		if h, err = bareHandler(args[2]); err != nil {
			panic(err)
		}
	}
	panic(http.ListenAndServe(args[1], h))
}

// bareHandler answers the calls of 2019 as the floor does, but from a file too:
// one goroutine commits to bbolt whatever has gathered, and nothing else is done.
// It is what net/http and the disk allow together, without a lock's rules, line,
// history, checksums, keys, log and metrics.
func bareHandler(path string) (http.Handler, error) {
	type question struct {
		name   string
		method string
		status chan int
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucket([]byte("leases"))
		return err
	})
	questions, held := make(chan question, 1024), map[string]bool{}
	answer := func(q question, leases *bbolt.Bucket) int {
		switch {
		case q.method == http.MethodDelete:
			delete(held, q.name)
			leases.Delete([]byte(q.name))
			return http.StatusNoContent
		case held[q.name]:
			return http.StatusForbidden
		}
		held[q.name] = true
		leases.Put([]byte(q.name), make([]byte, 64))
		return http.StatusCreated
	}
	go func() {
		for first := range questions {
			group := []question{first}
			for range len(questions) {
				group = append(group, <-questions)
			}
			status := make([]int, len(group))
			err := db.Update(func(tx *bbolt.Tx) error {
				for i, q := range group {
					status[i] = answer(q, tx.Bucket([]byte("leases")))
				}
				return nil
			})
			if err != nil {
				panic(err)
			}
			for i, q := range group {
				q.status <- status[i]
			}
		}
	}()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := question{r.URL.Query().Get("environment"), r.Method, make(chan int, 1)}
		questions <- q
		w.WriteHeader(<-q.status)
	}), err
}
