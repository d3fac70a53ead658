/* test_cache.c - what is kept, what goes first, how much is held, and many threads at it. */
#include <check.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "server/cache.h"
#include "tests/suite.h"

static const char json[] = "application/json", png[] = "image/png";

static struct cache_key key_of(uint64_t number)
{
    struct cache_hash hash;
    struct cache_key key;
    cache_hash_init(&hash);
    cache_hash_add(&hash, &number, sizeof number);
    ck_assert(cache_hash_finish(&hash, &key));
    return key;
}

/* Stores length times the byte `number`. */
static void put(struct cache *cache, uint64_t number, size_t length)
{
    void *bytes = malloc(length + 1);
    memset(bytes, (int)number, length);
    const struct cache_key key = key_of(number);
    cache_put(cache, &key, &(struct cache_value){bytes, length, json});
    free(bytes);
}

/* Whether the cache has it, whole; *length, unless NULL, is then its length. */
static bool get(struct cache *cache, uint64_t number, size_t *length)
{
    struct cache_value value = {NULL, 0, NULL};
    const struct cache_key key = key_of(number);
    if (!cache_get(cache, &key, &value))
        return false;
    const unsigned char *bytes = value.bytes;
    size_t right = 0;
    while (right < value.length && bytes[right] == (unsigned char)number)
        right++;
    ck_assert_uint_eq(right, value.length);
    ck_assert_ptr_eq(value.type, json);
    if (length)
        *length = value.length;
    free(value.bytes);
    return true;
}

static size_t bytes_of(struct cache *cache)
{
    return cache_stats(cache).bytes;
}

/* What an entry of this length takes. */
static size_t cost_of(size_t length)
{
    struct cache *cache = cache_create(1 << 20);
    const size_t empty = bytes_of(cache);
    put(cache, 0, length);
    const size_t cost = bytes_of(cache) - empty;
    ck_assert_uint_gt(cost, length);
    cache_free(cache);
    return cost;
}

START_TEST(test_parts_do_not_run_into_each_other)
{
    static const char *const parts[][4] = {{NULL},      {""},        {"", ""},     {"abc"},         {"ab", "c"},
                                           {"a", "bc"}, {"abc", ""}, {"", "abc"},  {"a", "b", "c"}, {"c", "ab"},
                                           {"a", "", "bc"}};
    enum { CASES = sizeof parts / sizeof parts[0] };
    struct cache_key keys[2][CASES];
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < CASES; i++) {
            struct cache_hash hash;
            cache_hash_init(&hash);
            for (size_t j = 0; parts[i][j] != NULL; j++)
                cache_hash_add(&hash, parts[i][j], strlen(parts[i][j]));
            ck_assert(cache_hash_finish(&hash, &keys[round][i]));
        }
    }
    for (size_t i = 0; i < CASES; i++)
        for (size_t j = 0; j < CASES; j++)
            ck_assert_msg((memcmp(&keys[0][i], &keys[1][j], sizeof keys[0][i]) == 0) == (i == j), "%zu, %zu", i, j);
}
END_TEST

START_TEST(test_what_was_put_comes_back)
{
    struct cache *cache = cache_create(1 << 20);
    const struct cache_key key = key_of(1), other = key_of(2);
    char bytes[] = "{\"class\":7}";
    struct cache_value value = {NULL, 0, NULL};
    ck_assert(!cache_get(cache, &key, &value));
    cache_put(cache, &key, &(struct cache_value){bytes, sizeof bytes, png});
    bytes[0] = 'x'; /* the cache has its own */
    for (int round = 0; round < 2; round++) {
        ck_assert(cache_get(cache, &key, &value));
        ck_assert_uint_eq(value.length, sizeof bytes);
        ck_assert_str_eq(value.bytes, "{\"class\":7}");
        ck_assert_ptr_eq(value.type, png);
        memset(value.bytes, 'x', value.length); /* and so has the caller */
        free(value.bytes);
    }
    value = (struct cache_value){bytes, 3, png};
    ck_assert(!cache_get(cache, &other, &value));
    ck_assert(value.bytes == bytes && value.length == 3); /* untouched */
    cache_free(cache);
    cache_free(NULL);
}
END_TEST

START_TEST(test_empty_reply_is_a_reply)
{
    struct cache *cache = cache_create(1 << 20);
    const struct cache_key key = key_of(1);
    size_t length = 1;
    cache_put(cache, &key, &(struct cache_value){NULL, 0, json});
    ck_assert(get(cache, 1, &length));
    ck_assert_uint_eq(length, 0);
    cache_free(cache);
}
END_TEST

START_TEST(test_least_recently_used_goes_first)
{
    enum { LENGTH = 2000, ROOM = 8, TABLE = 16 * sizeof(void *) }; /* of a cache of 16 to 32 KiB */
    static const uint64_t gone[] = {1, 2, 4}, kept[] = {0, 3, 5, 6, 7, 100, 101, 102};
    struct cache *cache = cache_create(TABLE + ROOM * cost_of(LENGTH));
    ck_assert_uint_eq(bytes_of(cache), TABLE);
    for (uint64_t i = 0; i < ROOM; i++)
        put(cache, i, LENGTH);
    ck_assert_uint_eq(cache_stats(cache).entries, ROOM);
    ck_assert(get(cache, 0, NULL)); /* used again, as is 3 */
    put(cache, 3, LENGTH);
    for (uint64_t i = 100; i < 103; i++)
        put(cache, i, LENGTH);
    for (size_t i = 0; i < sizeof gone / sizeof gone[0]; i++)
        ck_assert_msg(!get(cache, gone[i], NULL), "%d", (int)gone[i]);
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++)
        ck_assert_msg(get(cache, kept[i], NULL), "%d", (int)kept[i]);
    ck_assert_uint_eq(cache_stats(cache).entries, ROOM);
    cache_free(cache);
}
END_TEST

START_TEST(test_bytes_never_exceed_the_bound)
{
    enum { MAX = 100000 };
    struct cache *cache = cache_create(MAX);
    unsigned seed = 5;
    for (uint64_t i = 0; i < 3000; i++) {
        seed = seed * 1664525u + 1013904223u;
        const size_t length = (seed >> 8) % (i % 50 ? 1000 : MAX / 3);
        put(cache, i, length);
        ck_assert_uint_le(bytes_of(cache), MAX);
        ck_assert(get(cache, i, NULL) == (cost_of(length) <= MAX / 4));
    }
    ck_assert_uint_gt(bytes_of(cache), MAX / 2); /* and are put to use */
    cache_free(cache);
}
END_TEST

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define MALLOC_IS_GLIBCS
/* By malloc's own count of what it has given out. */
START_TEST(test_bytes_are_what_malloc_gives_out)
{
    static char bytes[4096]; /* none of malloc's: what is freed may stay in the count */
    struct cache *cache = cache_create(1 << 20);
    put(cache, 1000, 1); /* warm */
    const size_t given = mallinfo2().uordblks, counted = bytes_of(cache);
    for (uint64_t i = 0; i < 200; i++) {
        const struct cache_key key = key_of(i);
        cache_put(cache, &key, &(struct cache_value){bytes, (size_t)i * 13, json});
    }
    ck_assert_uint_eq(cache_stats(cache).entries, 201);
    const long difference = (long)(mallinfo2().uordblks - given) - (long)(bytes_of(cache) - counted);
    ck_assert_msg(labs(difference) < 512, "%ld", difference); /* a block freed before and used again */
    cache_free(cache);
}
END_TEST

/* The table of a cache of SIZE_MAX bytes cannot be had. */
START_TEST(test_short_of_memory)
{
    ck_assert_ptr_null(cache_create(SIZE_MAX));
    struct cache *cache = cache_create(1 << 20);
    put(cache, 1, 1);
    cache_resize(cache, SIZE_MAX);
    for (int round = 0; round < 2; round++) {
        ck_assert(!get(cache, 1, NULL));
        ck_assert_uint_eq(bytes_of(cache), 0);
        put(cache, 1, 1);
    }
    cache_free(cache);
}
END_TEST
#endif

START_TEST(test_large_replies_are_not_stored)
{
    enum { MAX = 1 << 20 };
    struct cache *cache = cache_create(MAX);
    const struct cache_key key = key_of(4);
    const size_t overhead = cost_of(1024) - 1024;
    char byte = 0;
    put(cache, 1, 1000);
    put(cache, 2, MAX / 4 - overhead);
    ck_assert(get(cache, 2, NULL));
    put(cache, 3, MAX / 4 - overhead + 16);
    ck_assert(!get(cache, 3, NULL));
    ck_assert(get(cache, 1, NULL)); /* nothing had to go for it */
    put(cache, 1, MAX / 4);
    ck_assert(!get(cache, 1, NULL)); /* what was put last, or nothing */
    cache_put(cache, &key, &(struct cache_value){&byte, SIZE_MAX, json});
    ck_assert(!get(cache, 4, NULL));
    cache_free(cache);
}
END_TEST

START_TEST(test_replacement_takes_the_place)
{
    struct cache *cache = cache_create(1 << 20);
    size_t length = 0;
    const size_t empty = bytes_of(cache);
    put(cache, 1, 3000);
    put(cache, 1, 10);
    ck_assert_uint_eq(cache_stats(cache).entries, 1);
    ck_assert_uint_eq(bytes_of(cache), empty + cost_of(10));
    ck_assert(get(cache, 1, &length));
    ck_assert_uint_eq(length, 10);
    cache_free(cache);
}
END_TEST

START_TEST(test_resize_keeps_the_newest)
{
    enum { LENGTH = 1000, ENTRIES = 1000, SMALL = 100000 };
    struct cache *cache = cache_create(8 << 20);
    for (uint64_t i = 0; i < ENTRIES; i++)
        put(cache, i, LENGTH);
    ck_assert_uint_eq(cache_stats(cache).entries, ENTRIES);
    cache_resize(cache, 64 << 20);
    for (uint64_t i = 0; i < ENTRIES; i++)
        ck_assert(get(cache, i, NULL));
    cache_resize(cache, SMALL);
    ck_assert_uint_le(bytes_of(cache), SMALL);
    const size_t kept = cache_stats(cache).entries;
    ck_assert_uint_ge((kept + 1) * cost_of(LENGTH) + 64 * sizeof(void *), SMALL); /* not one less than fits */
    for (uint64_t i = 0; i < ENTRIES; i++)
        ck_assert(get(cache, i, NULL) == (i >= ENTRIES - kept));
    cache_free(cache);
}
END_TEST

START_TEST(test_tiny_caches_store_nothing)
{
    static const size_t sizes[] = {0, 1, 7, 100, 1023};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct cache *cache = cache_create(sizes[i]);
        ck_assert_ptr_nonnull(cache);
        put(cache, 1, 1);
        ck_assert(!get(cache, 1, NULL));
        ck_assert_uint_eq(bytes_of(cache), 0);
        cache_resize(cache, 1 << 20); /* but not for ever */
        put(cache, 1, 1);
        ck_assert(get(cache, 1, NULL));
        cache_resize(cache, sizes[i]);
        ck_assert(!get(cache, 1, NULL));
        ck_assert_uint_eq(cache_stats(cache).entries, 0);
        ck_assert_uint_eq(bytes_of(cache), 0);
        cache_free(cache);
    }
}
END_TEST

enum { THREADS = 4, ROUNDS = 4000, NUMBERS = 300, SMALL_BYTES = 60000, LARGE_BYTES = 180000 };

struct user {
    struct cache *cache;
    unsigned seed;
    bool resizes;
    size_t hits;
    pthread_t thread;
};

static size_t length_of(uint64_t number)
{
    return (size_t)(number * 7 % 900);
}

static void *use(void *argument)
{
    struct user *user = argument;
    for (int round = 0; round < ROUNDS; round++) {
        size_t length = 0;
        user->seed = user->seed * 1664525u + 1013904223u;
        const uint64_t number = (user->seed >> 8) % NUMBERS;
        if (get(user->cache, number, &length)) {
            ck_assert_uint_eq(length, length_of(number));
            user->hits++;
        } else {
            put(user->cache, number, length_of(number));
        }
        if (user->resizes && round % 64 == 0)
            cache_resize(user->cache, round % 128 ? SMALL_BYTES : LARGE_BYTES);
        ck_assert_uint_le(bytes_of(user->cache), LARGE_BYTES);
    }
    return NULL;
}

START_TEST(test_threads_share_it)
{
    struct cache *cache = cache_create(LARGE_BYTES);
    struct user users[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        users[i] = (struct user){.cache = cache, .seed = i, .resizes = i == 0};
        ck_assert_int_eq(pthread_create(&users[i].thread, NULL, use, &users[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(users[i].thread, NULL);
        ck_assert_uint_gt(users[i].hits, ROUNDS / 20);
    }
    size_t bytes = 0;
    const size_t entries = cache_stats(cache).entries, used = bytes_of(cache);
    for (uint64_t number = 0; number < NUMBERS; number++)
        if (get(cache, number, NULL))
            bytes += cost_of(length_of(number));
    ck_assert_uint_gt(entries, 0);
    cache_resize(cache, LARGE_BYTES); /* a table of a size that we know */
    ck_assert_uint_eq(cache_stats(cache).entries, entries);
    ck_assert_uint_eq(bytes_of(cache), bytes + 128 * sizeof(void *));
    ck_assert_uint_le(used, LARGE_BYTES);
    cache_free(cache);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cache");
    TCase *tests = tcase_create("all");
    tcase_add_test(tests, test_parts_do_not_run_into_each_other);
    tcase_add_test(tests, test_what_was_put_comes_back);
    tcase_add_test(tests, test_empty_reply_is_a_reply);
    tcase_add_test(tests, test_least_recently_used_goes_first);
    tcase_add_test(tests, test_bytes_never_exceed_the_bound);
#ifdef MALLOC_IS_GLIBCS
    tcase_add_test(tests, test_bytes_are_what_malloc_gives_out);
    tcase_add_test(tests, test_short_of_memory);
#endif
    tcase_add_test(tests, test_large_replies_are_not_stored);
    tcase_add_test(tests, test_replacement_takes_the_place);
    tcase_add_test(tests, test_resize_keeps_the_newest);
    tcase_add_test(tests, test_tiny_caches_store_nothing);
    tcase_add_test(tests, test_threads_share_it);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
