# Reads the output of go test -v, prints the lines of each test that failed: at most 60 of a
# test, the first 30 and the last 30, and of the server's log none.
/^=== (RUN|CONT|NAME|PAUSE) / { test = $3; next }
/^ *--- FAIL: / { name = $0; sub(/^ *--- FAIL: /, "", name); sub(/ \(.*/, "", name); failed[++failures] = name; next }
/^ *--- / { next }
/time=.* level=/ { next }
{ line[test, ++lines[test]] = $0 }
END {
    for (f = 1; f <= failures; f++) {
        test = failed[f]
        print "failed: " test
        for (i = 1; i <= lines[test]; i++)
            if (i <= 30 || i > lines[test] - 30)
                print "    " substr(line[test, i], 1, 500)
    }
}
