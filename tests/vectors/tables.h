/* What headers.py makes of headers.json, for C and C++. */
#ifndef FASTMQ_VECTORS_TABLES_H
#define FASTMQ_VECTORS_TABLES_H

#include <stddef.h>

struct constant {
    const char *data;
    size_t size;
};

/* A header, or what is found under a name, if it is there. */
struct pair {
    struct constant name, value;
    int is_there;
};

struct good {
    const char *name;
    const struct pair *entries;
    size_t entries_count;
    const struct pair *lookups;
    size_t lookups_count;
    struct constant encoded;
};

struct bad {
    const char *name;
    struct constant encoded;
};

#include "headers.inc"

#endif
