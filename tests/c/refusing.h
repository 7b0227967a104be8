/* A malloc that refuses: this program's own, which the library calls too.
 *
 * It counts the library's requests and refuses those that the test says; what the C library needs
 * for itself is none of them. Include it once. A sanitizer has a malloc of its own: not under one.
 */
#ifndef FASTMQ_TESTS_REFUSING_H
#define FASTMQ_TESTS_REFUSING_H

#include <errno.h>
#include <limits.h>
#include <link.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *memory, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);
extern void __libc_free(void *memory);

/* What Rust's standard library asks of the system for a thread's handle, past the allocator that
 * has memory for it: docs/reference/limits.md. */
enum { THREAD_HANDLE_BYTES = 48 };

static uintptr_t library_start, library_end;
/* Blocks that the process holds. Not the library's alone: who frees cannot be seen, since a call of
 * `free` that ends a function returns to that function's caller. */
static atomic_llong live;
static atomic_ullong asked;   /* requests of the library since `refuse` */
static atomic_ullong refused; /* how many of them were refused */
static unsigned long long refuse_from, refuse_to;
static atomic_int is_starting_thread;

static int is_library(const void *caller)
{
    return (uintptr_t)caller >= library_start && (uintptr_t)caller < library_end;
}

/* Counts a request of the library; false: it is refused. */
static int may_allocate(const void *caller, size_t size)
{
    if (!is_library(caller)
        || (size == THREAD_HANDLE_BYTES && atomic_load(&is_starting_thread))) {
        return 1;
    }
    unsigned long long number = atomic_fetch_add(&asked, 1);
    if (number >= refuse_from && number < refuse_to) {
        atomic_fetch_add(&refused, 1);
        return 0;
    }
    return 1;
}

static void *counted(void *memory)
{
    if (memory != NULL) {
        atomic_fetch_add(&live, 1);
    }
    return memory;
}

#define CALLER __builtin_return_address(0)

void *malloc(size_t size)
{
    return may_allocate(CALLER, size) ? counted(__libc_malloc(size)) : NULL;
}

void *calloc(size_t count, size_t size)
{
    return may_allocate(CALLER, count * size) ? counted(__libc_calloc(count, size)) : NULL;
}

void *realloc(void *memory, size_t size)
{
    if (!may_allocate(CALLER, size)) {
        return NULL;
    }
    void *moved = __libc_realloc(memory, size);
    return memory == NULL ? counted(moved) : moved;
}

int posix_memalign(void **out, size_t alignment, size_t size)
{
    if (!may_allocate(CALLER, size)) {
        return ENOMEM;
    }
    *out = counted(__libc_memalign(alignment, size));
    return *out == NULL ? ENOMEM : 0;
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return may_allocate(CALLER, size) ? counted(__libc_memalign(alignment, size)) : NULL;
}

void free(void *memory)
{
    if (memory != NULL) {
        atomic_fetch_sub(&live, 1);
    }
    __libc_free(memory);
}

static int is_found(struct dl_phdr_info *info, size_t size, void *context)
{
    (void)size;
    (void)context;
    if (strstr(info->dlpi_name, "libfastmq") == NULL) {
        return 0;
    }
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        if (part->p_type == PT_LOAD && (part->p_flags & PF_X) != 0) {
            library_start = info->dlpi_addr + part->p_vaddr;
            library_end = library_start + part->p_memsz;
        }
    }
    return 1;
}

/* Finds out where the library is; false: it is not there. */
static int find_library(void)
{
    return dl_iterate_phdr(is_found, NULL) == 1;
}

/* From now on the requests `from` to `to` are refused, counted from 0; `to` is not. */
static void refuse(unsigned long long from, unsigned long long to)
{
    refuse_from = from;
    refuse_to = to;
    atomic_store(&asked, 0);
    atomic_store(&refused, 0);
}

#endif
