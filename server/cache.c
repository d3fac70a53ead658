/*
 * cache.c - a hash table with chains, and a list of its entries from the newest use to the oldest.
 *
 * The table is sized once, by max_bytes, since no use could make it too small: a bucket per KiB costs under 1 % of the
 * bytes, and replies, with what describes them, rarely have less than a few hundred bytes; so chains stay short. Keys
 * are SHA-256, uniform as they are: their first bits choose the bucket. A client could look for requests that share
 * one, but each lengthens its chain only after it has been answered in full.
 *
 * One mutex protects every field of the cache and of its entries. Replies are copied under it, which takes
 * microseconds, and spares entries a count of their readers.
 */
#include "server/cache.h"

#include <gnutls/crypto.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { BYTES_PER_BUCKET = 1024, LARGEST_SHARE = 4 };

struct entry {
    struct entry *next; /* in its chain */
    struct entry *newer, *older;
    struct cache_key key;
    const char *type;
    size_t length;
    unsigned char bytes[];
};

struct cache {
    pthread_mutex_t mutex;
    size_t max_bytes;
    struct cache_stats used;
    struct entry *newest, *oldest;
    struct entry **buckets; /* NULL: stores nothing */
    size_t bucket_count;    /* a power of two, or 0 */
};

/* ---- keys ---- */

void cache_hash_init(struct cache_hash *hash)
{
    gnutls_hash_hd_t state;
    hash->state = gnutls_hash_init(&state, GNUTLS_DIG_SHA256) == 0 ? state : NULL;
}

static void add_bytes(struct cache_hash *hash, const void *bytes, size_t length)
{
    if (hash->state && length && gnutls_hash(hash->state, bytes, length) != 0) {
        gnutls_hash_deinit(hash->state, NULL);
        hash->state = NULL;
    }
}

void cache_hash_add(struct cache_hash *hash, const void *part, size_t length)
{
    const uint64_t prefix = length;
    add_bytes(hash, &prefix, sizeof prefix);
    add_bytes(hash, part, length);
}

bool cache_hash_finish(struct cache_hash *hash, struct cache_key *key)
{
    if (!hash->state)
        return false;
    gnutls_hash_deinit(hash->state, key->bytes);
    hash->state = NULL;
    return true;
}

/* ---- entries; the mutex is held from here to the interface ---- */

/* What an entry takes, with the header and the rounding of glibc's malloc; SIZE_MAX where no number can tell. */
static size_t entry_cost(size_t length)
{
    enum { HEADER = sizeof(size_t), GRAIN = 2 * sizeof(size_t) };
    const size_t overhead = sizeof(struct entry) + HEADER + GRAIN - 1;
    return length <= SIZE_MAX - overhead ? (length + overhead) / GRAIN * GRAIN : SIZE_MAX;
}

static struct entry **bucket_of(const struct cache *cache, const struct cache_key *key)
{
    size_t number;
    memcpy(&number, key->bytes, sizeof number);
    return &cache->buckets[number & (cache->bucket_count - 1)];
}

static struct entry *find(const struct cache *cache, const struct cache_key *key)
{
    struct entry *entry = cache->buckets ? *bucket_of(cache, key) : NULL;
    while (entry && memcmp(entry->key.bytes, key->bytes, sizeof key->bytes) != 0)
        entry = entry->next;
    return entry;
}

static void unlink_use(struct cache *cache, struct entry *entry)
{
    *(entry->newer ? &entry->newer->older : &cache->newest) = entry->older;
    *(entry->older ? &entry->older->newer : &cache->oldest) = entry->newer;
}

static void link_newest(struct cache *cache, struct entry *entry)
{
    entry->newer = NULL;
    entry->older = cache->newest;
    *(cache->newest ? &cache->newest->newer : &cache->oldest) = entry;
    cache->newest = entry;
}

static void link_bucket(struct cache *cache, struct entry *entry)
{
    struct entry **bucket = bucket_of(cache, &entry->key);
    entry->next = *bucket;
    *bucket = entry;
}

static void drop(struct cache *cache, struct entry *entry)
{
    struct entry **link = bucket_of(cache, &entry->key);
    while (*link != entry)
        link = &(*link)->next;
    *link = entry->next;
    unlink_use(cache, entry);
    cache->used.entries--;
    cache->used.bytes -= entry_cost(entry->length);
    free(entry);
}

/* Drops the oldest until `more` bytes, of at most max_bytes, fit or nothing is left. */
static void make_room(struct cache *cache, size_t more)
{
    while (cache->oldest && cache->used.bytes > cache->max_bytes - more)
        drop(cache, cache->oldest);
}

/* Where it fits; nothing is under the key. */
static void insert(struct cache *cache, const struct cache_key *key, const struct cache_value *value)
{
    const size_t cost = entry_cost(value->length);
    struct entry *entry = NULL;
    if (cache->buckets && cost <= cache->max_bytes / LARGEST_SHARE)
        entry = malloc(sizeof *entry + value->length);
    if (!entry)
        return;
    entry->key = *key;
    entry->type = value->type;
    entry->length = value->length;
    if (value->length)
        memcpy(entry->bytes, value->bytes, value->length);
    make_room(cache, cost);
    link_bucket(cache, entry);
    link_newest(cache, entry);
    cache->used.entries++;
    cache->used.bytes += cost;
}

static bool copy_out(const struct entry *entry, struct cache_value *value)
{
    void *copy = malloc(entry->length ? entry->length : 1);
    if (!copy)
        return false;
    memcpy(copy, entry->bytes, entry->length);
    value->bytes = copy;
    value->length = entry->length;
    value->type = entry->type;
    return true;
}

/* The largest power of two that leaves each bucket its KiB; 0 for a cache that is too small to store anything. */
static size_t buckets_for(size_t max_bytes)
{
    size_t count = max_bytes / BYTES_PER_BUCKET;
    while (count & (count - 1))
        count &= count - 1;
    return count;
}

static size_t table_bytes(const struct cache *cache)
{
    return cache->bucket_count * sizeof *cache->buckets;
}

/* Takes over buckets, all empty. Without any (NULL) the entries go too. */
static void set_table(struct cache *cache, struct entry **buckets, size_t count)
{
    while (!buckets && cache->oldest)
        drop(cache, cache->oldest);
    cache->used.bytes -= table_bytes(cache);
    free(cache->buckets);
    cache->buckets = buckets;
    cache->bucket_count = buckets ? count : 0;
    cache->used.bytes += table_bytes(cache);
    for (struct entry *entry = cache->oldest; entry; entry = entry->newer)
        link_bucket(cache, entry);
}

/* ---- the interface ---- */

struct cache *cache_create(size_t max_bytes)
{
    struct cache *cache = calloc(1, sizeof *cache);
    if (!cache)
        return NULL;
    pthread_mutex_init(&cache->mutex, NULL);
    cache_resize(cache, max_bytes);
    if (buckets_for(max_bytes) && !cache->buckets) {
        cache_free(cache);
        return NULL;
    }
    return cache;
}

void cache_free(struct cache *cache)
{
    if (!cache)
        return;
    set_table(cache, NULL, 0);
    pthread_mutex_destroy(&cache->mutex);
    free(cache);
}

void cache_resize(struct cache *cache, size_t max_bytes)
{
    const size_t count = buckets_for(max_bytes);
    struct entry **buckets = count ? calloc(count, sizeof *cache->buckets) : NULL;
    pthread_mutex_lock(&cache->mutex);
    cache->max_bytes = max_bytes;
    set_table(cache, buckets, count);
    make_room(cache, 0);
    pthread_mutex_unlock(&cache->mutex);
}

bool cache_get(struct cache *cache, const struct cache_key *key, struct cache_value *value)
{
    pthread_mutex_lock(&cache->mutex);
    struct entry *entry = find(cache, key);
    const bool found = entry && copy_out(entry, value);
    if (found) {
        unlink_use(cache, entry);
        link_newest(cache, entry);
    }
    pthread_mutex_unlock(&cache->mutex);
    return found;
}

void cache_put(struct cache *cache, const struct cache_key *key, const struct cache_value *value)
{
    pthread_mutex_lock(&cache->mutex);
    struct entry *old = find(cache, key);
    if (old)
        drop(cache, old);
    insert(cache, key, value);
    pthread_mutex_unlock(&cache->mutex);
}

struct cache_stats cache_stats(struct cache *cache)
{
    pthread_mutex_lock(&cache->mutex);
    const struct cache_stats used = cache->used;
    pthread_mutex_unlock(&cache->mutex);
    return used;
}
