module github.com/modtrace/modtrace

go 1.26
