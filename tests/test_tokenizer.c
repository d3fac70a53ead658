/*
 * test_tokenizer.c - CLIP's tokens: the published ones (../shared or VITD_SHARED; skipped without), each rule with a
 * small vocabulary, random merges against the plain algorithm, texts that could take long, and damaged files.
 */
#include <check.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/store/json.h"
#include "engine/text/tokenizer.h"
#include "tests/folders.h"
#include "tests/photos.h"
#include "tests/suite.h"
#include "tests/tiny_vocabulary.h"

enum { CAPACITY = 77, MAX_IDS = 256, UNTOUCHED = -7 };

static const char *const words[] = {"lo", "low</w>", "aa", "aaaa", "bc</w>", "ab", "er</w>", "xy", "yz", "xyz"};
enum { LO = ADDED, LOW, AA, AAAA, BC, AB, ER, XY, YZ, XYZ, BEGIN, END, TOKENS };
static const char merges[] = "#version: 0.2\nl o\nlo w</w>\na a\naa aa\nb c</w>\na b\ne r</w>\nx y\ny z\nx yz\n";

static char folder[FOLDER_BYTES];
static struct tokenizer *tokenizer;
static int32_t ids[MAX_IDS + 1];
static size_t count;
static vit_error err;

static void set_up(void)
{
    folder_make(folder);
    tiny_vocabulary_write(folder, words, sizeof words / sizeof *words);
    folder_write(folder, "merges.txt", merges);
    ck_assert_msg(tokenizer_open(&tokenizer, folder, TOKENS, &err) == VIT_OK, "%s", err.message);
}

static void tear_down(void)
{
    tokenizer_free(tokenizer);
    folder_remove(folder);
}

/* In a block of the exact size, so that reading past the end shows. */
static vit_status encode_bytes(const char *text, size_t length, size_t capacity)
{
    char *copy = malloc(length ? length : 1);
    size_t written = 0;
    memcpy(copy, text, length);
    for (size_t i = 0; i <= MAX_IDS; i++)
        ids[i] = UNTOUCHED;
    const vit_status status = tokenizer_encode(tokenizer, copy, length, ids, capacity, &count, &err);
    if (status == VIT_OK) {
        for (size_t i = count; i <= MAX_IDS; i++)
            written += ids[i] != UNTOUCHED;
        ck_assert(count >= 2 && count <= capacity && written == 0);
    }
    free(copy);
    return status;
}

static void encode(const char *text)
{
    ck_assert_msg(encode_bytes(text, strlen(text), CAPACITY) == VIT_OK, "%s: %s", text, err.message);
}

/* The tokens between begin and end. */
#define check_tokens(text, ...) check_list(text, (const int32_t[]){__VA_ARGS__}, \
                                           sizeof (int32_t[]){__VA_ARGS__} / sizeof(int32_t))
static void check_list(const char *text, const int32_t *wanted, size_t wanted_count)
{
    encode(text);
    ck_assert_msg(count == wanted_count + 2, "%s: %zu tokens and not %zu", text, count, wanted_count + 2);
    ck_assert_int_eq(ids[0], BEGIN);
    for (size_t i = 0; i < wanted_count; i++)
        ck_assert_msg(ids[i + 1] == wanted[i], "%s: token %zu is %d and not %d", text, i, ids[i + 1], wanted[i]);
    ck_assert_int_eq(ids[count - 1], END);
}

/* Words whose bytes have no merges, with a blank after each. */
static void check_words(const char *text, const char *expected)
{
    int32_t wanted[CAPACITY];
    size_t n = 0;
    for (const char *c = expected; *c != '\0'; c++)
        if (*c != ' ')
            wanted[n++] = (uint8_t)*c + (c[1] == ' ' || c[1] == '\0' ? LAST : 0);
    check_list(text, wanted, n);
}

START_TEST(test_words_become_tokens)
{
    check_tokens("low", LOW);
    check_tokens("Low LOW\tlow", LOW, LOW, LOW);
    check_tokens("lower", LO, 'w', ER);
    check_tokens("lo", 'l', LAST + 'o'); /* "lo" is no end of a word */
    check_tokens("q", LAST + 'q');
}
END_TEST

START_TEST(test_merges_go_by_rank_and_from_the_left)
{
    check_tokens("abc", 'a', BC);      /* b c</w> comes before a b */
    check_tokens("abcq", AB, 'c', LAST + 'q');
    check_tokens("xyzq", XY, 'z', LAST + 'q'); /* x y before y z, and then xy z is no merge */
    check_tokens("yzq", YZ, LAST + 'q');
    check_tokens("aaaq", AA, 'a', LAST + 'q');
    check_tokens("aaaaaaaq", AAAA, AA, 'a', LAST + 'q');
}
END_TEST

START_TEST(test_white_space_separates_and_is_no_token)
{
    check_words("  q \t\n\v\f\r q  ", "q q");
    check_words("q\xc2\x85q\u00a0q\u1680q\u2003q\u2028q\u2029q\u202fq\u205fq\u3000q", "q q q q q q q q q q");
    /* these look like it, and are not */
    check_words("q\x1cq\u200bq\u180eq\ufeffq", "q \x1c q \u200b q \u180e q \ufeff q");
}
END_TEST

START_TEST(test_pieces_of_the_pattern)
{
    check_words("q's q't q're q've q'm q'll q'd", "q 's q 't q 're q 've q 'm q 'll q 'd");
    check_words("Q'S q'se 'rq 'l '", "q 's q 's e ' rq ' l '");
    check_words("q!'s", "q !' s"); /* a run of symbols takes the apostrophe */
    check_words("q12\u00b3\u216b\u0663", "q 1 2 \u00b3 \u217b \u0663");
    check_words("q_q--+=$q?!", "q _ q --+=$ q ?!");
    check_words("\u65e5\u672cq\u0e01\u0e34q", "\u65e5\u672cq\u0e01 \u0e34 q"); /* a vowel sign is a mark, no letter */
    check_words("q\U0001f406\u00e9", "q \U0001f406 \u00e9");
}
END_TEST

START_TEST(test_characters_are_composed)
{
    check_words("e\u0301", "\u00e9");
    check_words("q\u0323\u0307 q\u0307\u0323", "q \u0323\u0307 q \u0323\u0307");
    check_words("a\u0301\u0323", "\u1ea1 \u0301");
    check_words("\u1112\u1161\u11ab", "\ud55c");
    check_words("\u212b\u2126", "\u00e5\u03c9"); /* Angstrom and Ohm signs, then lower case */
    check_words("\u0958", "\u0915 \u093c");      /* excluded from composition */
    check_words("\U0001d15e", "\U0001d157\U0001d165");
    check_words("\ufb01", "\ufb01"); /* a ligature is another character, compatible only */
}
END_TEST

START_TEST(test_lower_case_of_each_character_alone)
{
    check_words("\u00c9\u0416\u1e9e\U00010400", "\u00e9\u0436\u00df\U00010428");
    check_words("\u0391\u03a3", "\u03b1\u03c3"); /* no final sigma */
    check_words("Q\u0130\u0130Q", "qi \u0307 i \u0307 q");
    check_words("I\u0307", "i \u0307");
    check_words("\u01c5\u00df", "\u01c6\u00df");
}
END_TEST

START_TEST(test_special_tokens_in_a_text)
{
    check_tokens("low<|endoftext|>low", LOW, END, LOW);
    check_tokens("!<|startoftext|><|EndOfText|> ", LAST + '!', BEGIN, END);
    check_tokens("<|endoftext|>", END);
    check_words("<|endoftext |><|endoftext|", "<| endoftext |><| endoftext |");
    check_words("<<|endoftext|\u226f", "<<| endoftext |\u226f");
    check_words("<|endoftext|>\u0338", "<| endoftext |\u226f"); /* composed before it is looked for */
}
END_TEST

START_TEST(test_long_texts_are_cut_and_end)
{
    static const char text[] = "low low low";
    const size_t length = sizeof text - 1;
    ck_assert_int_eq(encode_bytes(text, length, 5), VIT_OK);
    ck_assert_uint_eq(count, 5);
    ck_assert_int_eq(encode_bytes(text, length, 4), VIT_OK);
    ck_assert_uint_eq(count, 4);
    ck_assert_int_eq(ids[2], LOW);
    ck_assert_int_eq(ids[3], END);
    ck_assert_int_eq(encode_bytes("qqqq", 4, 4), VIT_OK); /* within a word */
    ck_assert_uint_eq(count, 4);
    ck_assert_int_eq(ids[2], 'q');
    ck_assert_int_eq(ids[3], END);
    ck_assert_int_eq(encode_bytes("q<|startoftext|>", 16, 3), VIT_OK);
    ck_assert_uint_eq(count, 3);
    ck_assert_int_eq(ids[2], END);
    ck_assert_int_eq(encode_bytes(text, length, 2), VIT_OK);
    ck_assert_uint_eq(count, 2);
    ck_assert_int_eq(ids[0], BEGIN);
    ck_assert_int_eq(ids[1], END);
    ck_assert_int_eq(encode_bytes(text, length, 1), VIT_ERR_ARGUMENT);
}
END_TEST

static void check_refused(const char *text, size_t length, const char *why)
{
    ck_assert_int_eq(encode_bytes(text, length, CAPACITY), VIT_ERR_ARGUMENT);
    ck_assert_msg(strstr(err.message, why) != NULL, "%s: %s", why, err.message);
}

START_TEST(test_texts_that_are_refused)
{
    static const char *const not_utf8[] = {"q\x80", "q\xc3", "q\xc0\xaf", "q\xe0\x80\xaf", "q\xed\xa0\x80",
                                           "q\xf4\x90\x80\x80", "q\xf5\x80\x80\x80", "q\xff", "q\xe2\x82 "};
    char *text = malloc(TOKENIZER_MAX_BYTES + 1);
    memset(text, ' ', TOKENIZER_MAX_BYTES + 1);
    check_refused("", 0, "empty");
    check_refused(" \n\u3000", 5, "empty");
    check_refused(text, TOKENIZER_MAX_BYTES, "empty");
    check_refused(text, TOKENIZER_MAX_BYTES + 1, "131073 bytes; at most 131072");
    for (size_t i = 0; i < sizeof not_utf8 / sizeof *not_utf8; i++)
        check_refused(not_utf8[i], strlen(not_utf8[i]), "not UTF-8: byte 1 ");
    ck_assert_int_eq(encode_bytes("q\0q", 3, CAPACITY), VIT_OK); /* a control character as any other */
    ck_assert_uint_eq(count, 5);
    ck_assert_int_eq(ids[2], LAST);
    free(text);
}
END_TEST

/* Were these quadratic, they would take minutes, and the test would time out. */
START_TEST(test_the_longest_texts)
{
    static const char marks[] = "\u0323\u0301"; /* of the classes 220 and 230 */
    char *text = malloc(TOKENIZER_MAX_BYTES);
    memset(text, 'a', TOKENIZER_MAX_BYTES);
    ck_assert_int_eq(encode_bytes(text, TOKENIZER_MAX_BYTES, CAPACITY), VIT_OK);
    ck_assert_uint_eq(count, CAPACITY);
    for (size_t i = 1; i < CAPACITY - 1; i++)
        ck_assert_int_eq(ids[i], AAAA);
    memset(text, '<', TOKENIZER_MAX_BYTES);
    ck_assert_int_eq(encode_bytes(text, TOKENIZER_MAX_BYTES, CAPACITY), VIT_OK);
    for (size_t i = 0; i < TOKENIZER_MAX_BYTES; i++)
        text[i] = marks[(i + 2) % 4]; /* in the wrong order, and decomposed */
    text[0] = text[1] = 'q';
    ck_assert_int_eq(encode_bytes(text, TOKENIZER_MAX_BYTES, CAPACITY), VIT_OK);
    for (size_t i = 3; i < CAPACITY - 2; i += 2) {
        ck_assert_int_eq(ids[i], 0xcc);
        ck_assert_int_eq(ids[i + 1], 0xa3); /* U+0323 is cc a3, U+0301 cc 81 */
    }
    free(text);
}
END_TEST

/* ---- random input ---- */

enum { LETTERS = 3, RANDOM_MERGES = 24, RANDOM_TOKENS = 2 * LETTERS + RANDOM_MERGES, LONGEST = 24 };

static struct {
    char tokens[RANDOM_TOKENS][3 * LONGEST];
    size_t token_count, merge_count;
    size_t left[RANDOM_MERGES], right[RANDOM_MERGES], whole[RANDOM_MERGES]; /* of tokens */
} random_bpe;

static size_t random_token(const char *text)
{
    for (size_t i = 0; i < random_bpe.token_count; i++)
        if (strcmp(random_bpe.tokens[i], text) == 0)
            return i;
    strcpy(random_bpe.tokens[random_bpe.token_count], text);
    return random_bpe.token_count++;
}

static bool has_merge(size_t left, size_t right)
{
    for (size_t i = 0; i < random_bpe.merge_count; i++)
        if (random_bpe.left[i] == left && random_bpe.right[i] == right)
            return true;
    return false;
}

static void draw_merges(void)
{
    static const char *const letters[] = {"a", "b", "c", "a</w>", "b</w>", "c</w>"};
    random_bpe.token_count = random_bpe.merge_count = 0;
    for (size_t i = 0; i < 2 * LETTERS; i++)
        random_token(letters[i]);
    while (random_bpe.merge_count < RANDOM_MERGES) {
        char text[2 * 3 * LONGEST];
        const size_t left = (size_t)rand() % random_bpe.token_count, right = (size_t)rand() % random_bpe.token_count;
        snprintf(text, sizeof text, "%s%s", random_bpe.tokens[left], random_bpe.tokens[right]);
        if (strchr(random_bpe.tokens[left], '<') != NULL || strlen(text) > LONGEST || has_merge(left, right))
            continue;
        const size_t merge = random_bpe.merge_count++;
        random_bpe.left[merge] = left;
        random_bpe.right[merge] = right;
        random_bpe.whole[merge] = random_token(text);
    }
}

/* The tokenizer of these merges. */
static void open_random(void)
{
    const char *added[RANDOM_TOKENS];
    char *text = NULL;
    size_t length = 0;
    FILE *file = open_memstream(&text, &length);
    for (size_t i = 0; i < random_bpe.merge_count; i++)
        fprintf(file, "%s %s\n", random_bpe.tokens[random_bpe.left[i]], random_bpe.tokens[random_bpe.right[i]]);
    fclose(file);
    for (size_t i = 2 * LETTERS; i < random_bpe.token_count; i++)
        added[i - 2 * LETTERS] = random_bpe.tokens[i];
    tiny_vocabulary_write(folder, added, random_bpe.token_count - 2 * LETTERS);
    folder_write(folder, "merges.txt", text);
    free(text);
    tokenizer_free(tokenizer);
    tokenizer = NULL;
    ck_assert_msg(tokenizer_open(&tokenizer, folder, ADDED + RANDOM_TOKENS, &err) == VIT_OK, "%s", err.message);
}

static int32_t id_of(size_t token)
{
    return token >= 2 * LETTERS ? (int32_t)(ADDED + token - 2 * LETTERS)
                                : 'a' + (int32_t)(token % LETTERS) + (token < LETTERS ? 0 : LAST);
}

/* Merge after merge in the order of their ranks, each wherever it is found from the left; as long as any is. */
static size_t plain_bpe(size_t *tokens, size_t length)
{
    for (size_t rank = 0; rank < random_bpe.merge_count;) {
        size_t kept = 0;
        for (size_t i = 0; i < length; i++, kept++)
            if (i + 1 < length && tokens[i] == random_bpe.left[rank] && tokens[i + 1] == random_bpe.right[rank])
                tokens[kept] = random_bpe.whole[rank], i++;
            else
                tokens[kept] = tokens[i];
        rank = kept < length ? 0 : rank + 1;
        length = kept;
    }
    return length;
}

START_TEST(test_random_merges)
{
    srand(7);
    for (int round = 0; round < 300; round++) {
        if (round % 10 == 0) {
            draw_merges();
            open_random();
        }
        char text[200];
        size_t tokens[200];
        const size_t length = 1 + (size_t)rand() % 199;
        for (size_t i = 0; i < length; i++) {
            tokens[i] = (size_t)rand() % LETTERS;
            text[i] = (char)('a' + tokens[i]);
        }
        tokens[length - 1] += LETTERS;
        const size_t wanted = plain_bpe(tokens, length);
        ck_assert_int_eq(encode_bytes(text, length, MAX_IDS), VIT_OK);
        ck_assert_uint_eq(count, wanted + 2);
        for (size_t i = 0; i < wanted; i++)
            ck_assert_int_eq(ids[i + 1], id_of(tokens[i]));
    }
}
END_TEST

START_TEST(test_random_bytes)
{
    static const char *const parts[] = {"low", "\u0301", "\u0323", "\u0130", " ", "'", "<|endoftext|>", "1"};
    srand(11);
    for (int round = 0; round < 20000; round++) {
        char text[256];
        size_t length = 0;
        while (length < 200 && rand() % 40 != 0) {
            const char *part = parts[(size_t)rand() % (sizeof parts / sizeof *parts)];
            if (rand() % 8 != 0)
                length += (size_t)sprintf(text + length, "%s", part);
            else
                text[length++] = (char)rand();
        }
        const size_t capacity = 2 + (size_t)rand() % CAPACITY;
        if (encode_bytes(text, length, capacity) != VIT_OK)
            continue;
        size_t wrong = ids[0] != BEGIN || ids[count - 1] != END;
        for (size_t i = 0; i < count; i++)
            wrong += ids[i] < 0 || ids[i] >= TOKENS;
        ck_assert_uint_eq(wrong, 0);
    }
}
END_TEST

/* ---- files ---- */

/* The first `old` in a file of the folder becomes `new`. */
static void change(const char *name, const char *old, const char *new)
{
    char path[256], *text = NULL, *changed = NULL;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    ck_assert_int_eq(file_read(&text, NULL, path, 1 << 20, &err), VIT_OK);
    char *at = strstr(text, old);
    ck_assert_msg(at != NULL, "%s", old);
    ck_assert_int_gt(asprintf(&changed, "%.*s%s%s", (int)(at - text), text, new, at + strlen(old)), 0);
    folder_write(folder, name, changed);
    free(changed);
    free(text);
}

static void check_open(size_t size, vit_status status, const char *file, const char *why)
{
    struct tokenizer *opened = NULL;
    vit_error error = {""};
    ck_assert_msg(tokenizer_open(&opened, folder, size, &error) == status, "%s: %s", why, error.message);
    ck_assert((opened != NULL) == (status == VIT_OK));
    ck_assert_msg(strstr(error.message, why) != NULL, "%s: %s", why, error.message);
    ck_assert_msg(strstr(error.message, file) != NULL, "%s: %s", file, error.message);
    tokenizer_free(opened);
}

START_TEST(test_damaged_vocabularies)
{
    static const struct {
        const char *old, *new, *why;
    } cases[] = {
        {"{", "[", "not valid JSON"},
        {"\"low</w>\": 513", "\"low</w>\": 512", "\"lo\" and \"low</w>\" both have the id 512"},
        {"\"low</w>\": 513", "\"low</w>\": 524", "\"low</w>\" must be a whole number below 524"},
        {"\"low</w>\": 513", "\"low</w>\": -1", "must be a whole number"},
        {"\"low</w>\": 513", "\"low</w>\": 1.5", "must be a whole number"},
        {"\"low</w>\": 513", "\"low</w>\": 1e999", "must be a whole number"},
        {"\"low</w>\": 513", "\"low</w>\": null", "must be a whole number"},
        {"\"low</w>\": 513", "\"low</w>\": \"513\"", "must be a whole number"},
        {"\"low</w>\"", "\"lo\"", "\"lo\" is there twice"},
        {"\"A\": ", "\"AA\": ", "no token \"A\"; byte 0x41"},
        {"\"A</w>\": ", "\"AA\": ", "no token \"A</w>\"; byte 0x41"},
        {"\"\u0120\": ", "\"AA\": ", "no token \"\u0120\"; byte 0x20"},
        {"<|startoftext|>", "<|start|>", "no token \"<|startoftext|>\""},
        {"<|endoftext|>", "<|end|>", "no token \"<|endoftext|>\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tiny_vocabulary_write(folder, words, sizeof words / sizeof *words);
        change("vocab.json", cases[i].old, cases[i].new);
        check_open(TOKENS, VIT_ERR_FORMAT, "/vocab.json", cases[i].why);
    }
    tiny_vocabulary_write(folder, words, sizeof words / sizeof *words);
    check_open(TOKENS, VIT_OK, "", "");
    check_open(TOKENS - 1, VIT_ERR_FORMAT, "/vocab.json", "has 524 tokens; the model has rows for 1 to 523");
    check_open(0, VIT_ERR_FORMAT, "", "has 0 rows");
    check_open((size_t)1 << 31, VIT_ERR_FORMAT, "", "2147483648 rows");
    folder_write(folder, "vocab.json", "{}");
    check_open(TOKENS, VIT_ERR_FORMAT, "/vocab.json", "has 0 tokens");
}
END_TEST

START_TEST(test_damaged_merges)
{
    static const struct {
        const char *text, *why;
    } cases[] = {
        {"l o\nlow\n", ":2: \"low\" is not two tokens"},
        {"l  o\n", ":1: \"l  o\" is not two tokens"},
        {" l o\n", ":1: \" l o\" is not two tokens"},
        {"#version: 0.2\nl o w\n", ":2: \"l o w\" is not two tokens"},
        {"l \n", "is not two tokens"},
        {"zz o\n", ":1: \"zz\" is not a token"},
        {"\n\nl zz\n", ":3: \"zz\" is not a token"},
        {"l w", ":1: \"lw\" is not a token"},
        {"l o\na a\nl o\n", "the lines 1 and 3 are the same merge"},
        {"l o\n#version: 0.2\n", ":2: \"#version:\" is not a token"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        folder_write(folder, "merges.txt", cases[i].text);
        check_open(TOKENS, VIT_ERR_FORMAT, "/merges.txt", cases[i].why);
    }
    char path[256];
    snprintf(path, sizeof path, "%s/merges.txt", folder);
    FILE *file = fopen(path, "wb");
    fwrite("l o\0\n", 1, 5, file);
    fclose(file);
    check_open(TOKENS, VIT_ERR_FORMAT, "/merges.txt", "zero byte at 3");
    ck_assert_int_eq(truncate(path, (8 << 20) + 1), 0);
    check_open(TOKENS, VIT_ERR_FORMAT, "/merges.txt", "at most 8388608");
    remove(path);
    check_open(TOKENS, VIT_ERR_IO, "/merges.txt", "cannot be opened");
    snprintf(path, sizeof path, "%s/vocab.json", folder);
    remove(path);
    check_open(TOKENS, VIT_ERR_IO, "/vocab.json", "cannot be opened");
}
END_TEST

START_TEST(test_merges_as_other_systems_write_them)
{
    folder_write(folder, "merges.txt", "l o\r\n\r\nlo w</w>");
    tokenizer_free(tokenizer);
    ck_assert_msg(tokenizer_open(&tokenizer, folder, TOKENS, &err) == VIT_OK, "%s", err.message);
    check_tokens("lowlow", LO, 'w', LOW);
    folder_write(folder, "merges.txt", "");
    tokenizer_free(tokenizer);
    ck_assert_msg(tokenizer_open(&tokenizer, folder, TOKENS, &err) == VIT_OK, "%s", err.message);
    check_tokens("lo", 'l', LAST + 'o');
}
END_TEST

/* ---- the published vocabulary ---- */

static void check_published(const cJSON *example)
{
    const cJSON *text = json_get(example, "text"), *wanted = json_get(example, "ids"), *id;
    const size_t length = strlen(text->valuestring);
    if (length == 0) { /* which we refuse */
        check_refused("", 0, "empty");
        return;
    }
    encode(text->valuestring);
    ck_assert_msg(count == (size_t)cJSON_GetArraySize(wanted), "%s: %zu tokens", text->valuestring, count);
    size_t i = 0;
    cJSON_ArrayForEach(id, wanted) {
        ck_assert_msg(ids[i] == id->valueint, "%s: token %zu is %d", text->valuestring, i, ids[i]);
        i++;
    }
}

START_TEST(test_published_tokens)
{
    enum { CLIP_TOKENS = 49408 };
    char path[600], clip[512];
    cJSON *examples = NULL;
    const cJSON *list, *example;
    size_t checked = 0;
    snprintf(clip, sizeof clip, "%s/golden/clip-hf", shared_folder());
    snprintf(path, sizeof path, "%s/tokens.json", clip);
    if (access(path, R_OK) != 0) {
        printf("skipped: there is no %s\n", path);
        return;
    }
    ck_assert_msg(json_load(&examples, path, &err) == VIT_OK, "%s", err.message);
    tokenizer_free(tokenizer);
    ck_assert_msg(tokenizer_open(&tokenizer, clip, CLIP_TOKENS, &err) == VIT_OK, "%s", err.message);
    cJSON_ArrayForEach(list, examples) {
        cJSON_ArrayForEach(example, list) {
            check_published(example);
            checked++;
        }
    }
    ck_assert_uint_ge(checked, 16);
    cJSON_Delete(examples);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tokenizer");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 30);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, test_words_become_tokens);
    tcase_add_test(tests, test_merges_go_by_rank_and_from_the_left);
    tcase_add_test(tests, test_white_space_separates_and_is_no_token);
    tcase_add_test(tests, test_pieces_of_the_pattern);
    tcase_add_test(tests, test_characters_are_composed);
    tcase_add_test(tests, test_lower_case_of_each_character_alone);
    tcase_add_test(tests, test_special_tokens_in_a_text);
    tcase_add_test(tests, test_long_texts_are_cut_and_end);
    tcase_add_test(tests, test_texts_that_are_refused);
    tcase_add_test(tests, test_the_longest_texts);
    tcase_add_test(tests, test_random_merges);
    tcase_add_test(tests, test_random_bytes);
    tcase_add_test(tests, test_damaged_vocabularies);
    tcase_add_test(tests, test_damaged_merges);
    tcase_add_test(tests, test_merges_as_other_systems_write_them);
    tcase_add_test(tests, test_published_tokens);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
