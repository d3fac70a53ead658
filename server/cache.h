/*
 * cache.h - replies kept for the next time the same is asked: bounded by bytes, the least recently used goes first.
 *
 * A key is the SHA-256 of everything that a reply depends on, so equal keys are taken for equal requests. All functions
 * are thread-safe, except that a cache_hash belongs to one thread.
 */
#ifndef SERVER_CACHE_H
#define SERVER_CACHE_H

#include <stdbool.h>
#include <stddef.h>

struct cache_key {
    unsigned char bytes[32];
};

/* A key in the making. Parts are hashed with their lengths: ("ab", "c") and ("a", "bc") differ. Memory running short is
 * remembered, not reported, until the end. */
struct cache_hash {
    void *state; /* GnuTLS's; NULL: failed */
};

void cache_hash_init(struct cache_hash *hash);
void cache_hash_add(struct cache_hash *hash, const void *part, size_t length);
/* Releases the hash, which must be done once. False, with *key untouched, when memory ran short. */
bool cache_hash_finish(struct cache_hash *hash, struct cache_key *key);

struct cache_value {
    void *bytes; /* may be NULL where length is 0 */
    size_t length;
    const char *type; /* content type; must outlive the cache (a literal), only the pointer is kept */
};

struct cache;

/* NULL when short of memory. max_bytes counts everything: replies, what describes them, malloc's share, the table.
 * Below 1 KiB nothing is stored. */
struct cache *cache_create(size_t max_bytes);
/* Accepts NULL. */
void cache_free(struct cache *cache);

/* Fills *value with a copy of the reply, whose bytes the caller frees. False, with *value untouched, where there is
 * none or no memory for the copy. */
bool cache_get(struct cache *cache, const struct cache_key *key, struct cache_value *value);
/* Stores a copy under the key, in place of what was there. A reply that takes more than a quarter of max_bytes, or for
 * which memory is short, is not stored; nothing is then under the key. */
void cache_put(struct cache *cache, const struct cache_key *key, const struct cache_value *value);
/* Keeps the most recently used of what still fits. 0 empties the cache and stores nothing from then on; so does a table
 * for which memory is short. */
void cache_resize(struct cache *cache, size_t max_bytes);

struct cache_stats {
    size_t entries, bytes; /* bytes: what max_bytes bounds */
};
struct cache_stats cache_stats(struct cache *cache);

#endif
