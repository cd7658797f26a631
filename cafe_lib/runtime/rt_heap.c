/*
 * malloc and its family over the one heap window the loader gave.
 *
 * Every block starts with a 16-byte header; free blocks are kept in bins by size and joined with free
 * neighbours. The header's top 16 bits are a tag of its address and a secret: freeing what is no block, or
 * twice, ends the enclave instead of corrupting it.
 */
#include "rt.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define HEADER 16u
#define SMALLEST 32u
#define BINS 128u
#define SIZE_MASK 0x0000fffffffffff0ull
#define USED 1ull

struct block {
    uint64_t word;                 /* tag << 48 | bytes with header | USED */
    uint64_t before;               /* bytes of the block in front of this one, 0 for the first */
    struct block *next, *previous; /* in the bin, while free */
};

static struct {
    uint64_t end, bytes, secret;
    struct block *bins[BINS];
    uint64_t filled[BINS / 64]; /* bit i: bin i is not empty */
    struct rt_lock lock;
} heap;

static uint64_t tag_of(const struct block *block) {
    return (((uint64_t)(uintptr_t)block ^ heap.secret) * 0x9e3779b97f4a7c15ull) >> 48 << 48;
}

static uint64_t size_of(const struct block *block) {
    return block->word & SIZE_MASK;
}

static struct block *block_at(uint64_t address) {
    return (struct block *)(uintptr_t)address;
}

static struct block *after(const struct block *block) {
    uint64_t address = (uint64_t)(uintptr_t)block + size_of(block);
    return address < heap.end ? block_at(address) : NULL;
}

/* Four bins to each power of two from 32 bytes on; every block of a later bin is larger. */
static unsigned bin_of(uint64_t size) {
    unsigned power = 63u - (unsigned)__builtin_clzll(size);
    unsigned bin = (power - 5u) * 4u + (unsigned)(size >> (power - 2u) & 3u);
    return bin < BINS ? bin : BINS - 1u;
}

static void set_size(struct block *block, uint64_t size, uint64_t used) {
    block->word = tag_of(block) | size | used;
    struct block *following = after(block);
    if (following)
        following->before = size;
}

static void put(struct block *block, uint64_t size) {
    unsigned bin = bin_of(size);
    set_size(block, size, 0);
    block->previous = NULL;
    block->next = heap.bins[bin];
    if (block->next)
        block->next->previous = block;
    heap.bins[bin] = block;
    heap.filled[bin / 64] |= 1ull << bin % 64;
}

static void take(struct block *block) {
    unsigned bin = bin_of(size_of(block));
    if (block->next)
        block->next->previous = block->previous;
    if (block->previous)
        block->previous->next = block->next;
    else
        heap.bins[bin] = block->next;
    if (!heap.bins[bin])
        heap.filled[bin / 64] &= ~(1ull << bin % 64);
}

static struct block *find(uint64_t size) {
    unsigned bin = bin_of(size);
    for (struct block *block = heap.bins[bin]; block; block = block->next)
        if (size_of(block) >= size)
            return block;
    if (++bin >= BINS)
        return NULL;
    uint64_t word = heap.filled[bin / 64] & ~0ull << bin % 64;
    if (!word && bin < 64)
        word = heap.filled[(bin = 64) / 64];
    return word ? heap.bins[bin / 64 * 64 + (unsigned)__builtin_ctzll(word)] : NULL;
}

/* Cut a used block, which was free before, to `size`; what is left over becomes a free block again. Its
 * neighbours are in use: free ones would have been joined with it. */
static void trim(struct block *block, uint64_t size) {
    uint64_t rest = size_of(block) - size;
    if (rest < SMALLEST)
        return;
    struct block *remainder = block_at((uint64_t)(uintptr_t)block + size);
    remainder->before = size;
    set_size(block, size, USED);
    put(remainder, rest);
}

static void release(struct block *block) {
    uint64_t size = size_of(block);
    struct block *following = after(block);
    if (following && !(following->word & USED)) {
        take(following);
        size += size_of(following);
    }
    if (block->before) {
        struct block *front = block_at((uint64_t)(uintptr_t)block - block->before);
        if (!(front->word & USED)) {
            take(front);
            size += size_of(front);
            block->word = 0; /* so that freeing it again is noticed */
            block = front;
        }
    }
    put(block, size);
}

static struct block *checked(void *pointer) {
    uint64_t address = (uint64_t)(uintptr_t)pointer;
    bool inside = address % 16 == 0 && address > heap.end - heap.bytes && address < heap.end;
    struct block *block = block_at(address - HEADER);
    if (!inside || block->word != (tag_of(block) | size_of(block) | USED))
        rt_abort(CAFE_E_ABORT);
    return block;
}

static void *allocate(uint64_t align, uint64_t bytes) {
    if (bytes > heap.bytes || align > heap.bytes) {
        errno = ENOMEM;
        return NULL;
    }
    uint64_t size = (bytes + HEADER + 15u) & ~15ull;
    size = size < SMALLEST ? SMALLEST : size;
    rt_lock(&heap.lock);
    struct block *block = find(align > 16 ? size + align + SMALLEST : size);
    if (block) {
        take(block);
        set_size(block, size_of(block), USED);
        uint64_t payload = (uint64_t)(uintptr_t)block + HEADER, skip = -payload & (align - 1);
        while (skip && skip < SMALLEST)
            skip += align;
        if (skip) {
            struct block *aligned = block_at(payload - HEADER + skip);
            uint64_t rest = size_of(block) - skip;
            aligned->before = skip;
            set_size(aligned, rest, USED);
            set_size(block, skip, USED);
            release(block);
            block = aligned;
        }
        trim(block, size);
    }
    rt_unlock(&heap.lock);
    if (!block)
        errno = ENOMEM;
    return block ? (char *)block + HEADER : NULL;
}

void rt_heap_start(uint64_t start, uint64_t bytes, uint64_t secret) {
    heap.secret = secret;
    heap.bytes = bytes & ~15ull;
    heap.end = start + heap.bytes;
    block_at(start)->before = 0;
    put(block_at(start), heap.bytes);
}

void *malloc(size_t bytes) {
    return allocate(16, bytes);
}

void free(void *pointer) {
    if (!pointer)
        return;
    rt_lock(&heap.lock);
    release(checked(pointer));
    rt_unlock(&heap.lock);
}

void *calloc(size_t count, size_t bytes) {
    size_t total;
    if (__builtin_mul_overflow(count, bytes, &total)) {
        errno = ENOMEM;
        return NULL;
    }
    void *pointer = allocate(16, total); /* malloc and memset would be made into calloc */
    return pointer ? memset(pointer, 0, total) : NULL;
}

void *realloc(void *pointer, size_t bytes) {
    if (!pointer)
        return malloc(bytes);
    size_t held = size_of(checked(pointer)) - HEADER;
    if (bytes <= held)
        return pointer;
    void *larger = malloc(bytes);
    if (larger) {
        memcpy(larger, pointer, held);
        free(pointer);
    }
    return larger;
}

void *aligned_alloc(size_t align, size_t bytes) {
    if (!align || align & (align - 1)) {
        errno = EINVAL;
        return NULL;
    }
    return allocate(align < 16 ? 16 : align, bytes);
}

int posix_memalign(void **result, size_t align, size_t bytes) {
    if (align < sizeof(void *) || align & (align - 1))
        return EINVAL;
    void *pointer = aligned_alloc(align, bytes);
    if (!pointer)
        return ENOMEM;
    *result = pointer;
    return 0;
}

size_t malloc_usable_size(void *pointer);

size_t malloc_usable_size(void *pointer) {
    return pointer ? size_of(checked(pointer)) - HEADER : 0;
}

/* An older name, and what musl calls from its own files, whoever defines malloc. */
#define TEXT(name) #name
#define SAME(name) __attribute__((alias(TEXT(name)), copy(name), visibility("hidden")))
void *memalign(size_t align, size_t bytes) SAME(aligned_alloc);
void *__libc_malloc(size_t bytes) SAME(malloc);
void *__libc_calloc(size_t count, size_t bytes) SAME(calloc);
void *__libc_realloc(void *pointer, size_t bytes) SAME(realloc);
void __libc_free(void *pointer) SAME(free);
