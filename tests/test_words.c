/*
 * test_words.c - texts as requests bring them: UTF-8, lists of labels, what a text tower reads of them, their
 * embeddings, and pictures and texts in a JSON body. Over HTTP they are tested in test_words_http.c.
 */
#include <check.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "server/http/image_message.h"
#include "server/utf8.h"
#include "server/work/words.h"
#include "tests/folders.h"
#include "tests/suite.h"
#include "tests/tiny_clip.h"

/* ---- UTF-8 ---- */

static void assert_utf8(const unsigned char *bytes, size_t length)
{
    int32_t point;
    const utf8proc_ssize_t found = utf8proc_iterate(bytes, (utf8proc_ssize_t)length, &point);
    const size_t wanted = found > 0 ? (size_t)found : 0;
    if (utf8_length(bytes, length) != wanted) /* millions of assertions would take long */
        ck_abort_msg("%02x %02x %02x %02x, of %zu: %zu, not %zu", bytes[0], bytes[1], bytes[2], bytes[3], length,
                     utf8_length(bytes, length), wanted);
}

/* Every pair of bytes, followed by the bytes at which something changes; whole and cut off. */
START_TEST(test_utf8_equals_utf8proc)
{
    static const unsigned char edges[] = {0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xE0, 0xFF};
    enum { EDGES = sizeof edges };
    for (unsigned pair = 0; pair < 1 << 16; pair++)
        for (size_t i = 0; i < EDGES * EDGES; i++) {
            const unsigned char bytes[] = {(unsigned char)(pair >> 8), (unsigned char)pair, edges[i / EDGES],
                                           edges[i % EDGES]};
            assert_utf8(bytes, 4);
            for (size_t length = 1; i == 0 && length < 4; length++)
                assert_utf8(bytes, length);
        }
    ck_assert_uint_eq(utf8_length("a", 0), 0);
}
END_TEST

START_TEST(test_utf8_of_whole_texts)
{
    ck_assert(utf8_is_valid("", 0));
    ck_assert(utf8_is_valid("A\xC3\xB1o \xF0\x9F\x90\x86", 9));
    ck_assert(!utf8_is_valid("A\xC3\xB1o \xF0\x9F\x90\x86", 8)); /* cut off */
    ck_assert(!utf8_is_valid("abc\xFF", 4));
    ck_assert(utf8_is_valid("abc\xFF", 3));
}
END_TEST

/* ---- lists of texts ---- */

static struct words *words;
static const char *why;

static void begin(const char *template)
{
    words = words_create(TINY_EMBEDDING, template);
    ck_assert_ptr_nonnull(words);
}

static bool add(const char *text)
{
    return words_add(words, text, strlen(text), &why);
}

START_TEST(test_texts_without_the_blanks_around_them)
{
    begin(NULL);
    ck_assert(add("a cat") && add(" \t a  dog\r\n") && add("\v\f,\f"));
    ck_assert_uint_eq(words->count, 3);
    ck_assert_str_eq(words->texts[0], "a cat");
    ck_assert_str_eq(words->texts[1], "a  dog");
    ck_assert_str_eq(words->texts[2], ",");
    words_free(words);
    words_free(NULL);
}
END_TEST

START_TEST(test_texts_that_are_none)
{
    static const struct {
        const char *text;
        size_t length;
        const char *why;
    } cases[] = {{"", 0, "empty"},
                 {" \t\r\n\v\f", 6, "empty"},
                 {"a\0b", 3, "zero byte"},
                 {"\0", 1, "zero byte"},
                 {"\xC3", 1, "not UTF-8"},
                 {"a cat \xFF", 7, "not UTF-8"},
                 {"\xED\xA0\x80", 3, "not UTF-8"}};
    char *text = malloc(WORDS_MAX_BYTES + 2);
    memset(text, 'a', WORDS_MAX_BYTES + 2);
    begin("");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        why = NULL;
        ck_assert(!words_add(words, cases[i].text, cases[i].length, &why));
        ck_assert_msg(strstr(why, cases[i].why) != NULL, "%s, not %s", why, cases[i].why);
    }
    ck_assert(!words_add(words, text, WORDS_MAX_BYTES + 1, &why));
    ck_assert_ptr_nonnull(strstr(why, "4096"));
    ck_assert_uint_eq(words->count, 0);
    text[0] = ' ';
    ck_assert(words_add(words, text, WORDS_MAX_BYTES + 1, &why)); /* without the blank it is short enough */
    ck_assert_uint_eq(strlen(words->texts[0]), WORDS_MAX_BYTES);
    words_free(words);
    free(text);
}
END_TEST

START_TEST(test_lists)
{
    begin("");
    ck_assert(words_add_list(words, "a cat, a dog ,a cat", ',', &why));
    ck_assert_uint_eq(words->count, 3);
    ck_assert_str_eq(words->texts[1], "a dog");
    ck_assert_str_eq(words->texts[2], "a cat");
    ck_assert(words_add_list(words, "one, and\ntwo", '\n', &why));
    ck_assert_uint_eq(words->count, 5);
    ck_assert_str_eq(words->texts[3], "one, and");
    static const char *const bad[] = {"", ",", "a,", ",a", "a,,b", "a, ,b"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ck_assert_msg(!words_add_list(words, bad[i], ',', &why), "%s", bad[i]);
        ck_assert_ptr_nonnull(strstr(why, "empty"));
    }
    words_free(words);
}
END_TEST

static void assert_sentence(const char *template, const char *text, const char *wanted)
{
    begin(template);
    ck_assert(add(text));
    char *sentence = words_sentence(words, 0);
    ck_assert_str_eq(sentence, wanted);
    free(sentence);
    words_free(words);
}

START_TEST(test_templates)
{
    assert_sentence(NULL, "cat", "cat");
    assert_sentence("", "cat", "cat");
    assert_sentence("{}", "cat", "cat");
    assert_sentence("a photo of {}.", "a cat", "a photo of a cat.");
    assert_sentence("{} and {}", "cat", "cat and {}");
    assert_sentence("100 %s of {}", "%n", "100 %s of %n");
    assert_sentence("a {}", "{}", "a {}");
}
END_TEST

/* ---- embeddings ---- */

START_TEST(test_embeddings_are_of_the_sentences)
{
    enum { MANY = 150 };
    char folder[FOLDER_BYTES], label[32];
    const char *sentences[MANY];
    float wanted[MANY * TINY_EMBEDDING];
    vit_model *model;
    vit_session *session;
    vit_error err = {""};
    folder_make(folder);
    tiny_clip_write(folder);
    ck_assert_msg(vit_model_open(&model, folder, NULL, &err) == VIT_OK, "%s", err.message);
    ck_assert_int_eq(vit_session_create(&session, model, 1, &err), VIT_OK);
    begin("a photo of {}");
    for (int i = 0; i < MANY; i++) {
        snprintf(label, sizeof label, "cat %d", i * 7919);
        ck_assert(add(label));
        sentences[i] = words_sentence(words, (size_t)i);
    }
    ck_assert_int_eq(words_encode(words, session, &err), VIT_OK);
    ck_assert_int_eq(vit_session_encode_texts(session, sentences, MANY, wanted, NULL, &err), VIT_OK);
    ck_assert_mem_eq(words->embeddings, wanted, sizeof wanted);
    for (int i = 0; i < MANY; i++) {
        ck_assert(words->known[i]);
        free((char *)sentences[i]);
    }
    words_free(words);
    begin("");
    ck_assert(add("\xC2\xA0")); /* a blank, but not of ASCII: the tower has nothing to read */
    ck_assert_int_eq(words_encode(words, session, &err), VIT_ERR_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(err.message, "empty"));
    ck_assert(!words->known[0]);
    words_free(words);
    vit_session_free(session);
    vit_model_free(model);
    folder_remove(folder);
}
END_TEST

/* ---- JSON ---- */

static struct image_message message;
static struct problem problem;

static bool parse_bytes(const char *text, size_t length)
{
    char *body = malloc(length); /* of that size, so that ASan sees whoever reads on */
    memcpy(body, text, length);
    message = (struct image_message){.max_images = 3, .max_texts = 4};
    problem = (struct problem){0};
    const bool good = image_message_parse(&message, body, length, &problem);
    free(body); /* nothing of it is needed any more */
    return good;
}

static bool parse(const char *text)
{
    return parse_bytes(text, strlen(text));
}

static void assert_text(const struct image_message_texts *texts, size_t i, const char *wanted)
{
    ck_assert_uint_lt(i, texts->count);
    ck_assert_uint_eq(texts->items[i].length, strlen(wanted));
    ck_assert_mem_eq(texts->items[i].text, wanted, strlen(wanted));
}

START_TEST(test_message_is_read)
{
    ck_assert_msg(parse(" {\"labels\": [\"a cat, or two\", \"\\u00e9\\ud83d\\udc06\\n\"], \"template\": \"a {}\",\n"
                        "\"image\": [\"AAEC\", \"/w==\"], \"target\": \"frisbee\"} "), "%s", problem.message);
    ck_assert_uint_eq(message.image_count, 2);
    ck_assert_uint_eq(message.images[0].length, 3);
    ck_assert_mem_eq(message.images[0].bytes, "\0\1\2", 3);
    ck_assert_uint_eq(message.images[1].length, 1);
    ck_assert_mem_eq(message.images[1].bytes, "\xFF", 1);
    ck_assert_uint_eq(message.labels.count, 2);
    assert_text(&message.labels, 0, "a cat, or two");
    assert_text(&message.labels, 1, "\xC3\xA9\xF0\x9F\x90\x86\n");
    ck_assert_uint_eq(message.targets.count, 1);
    assert_text(&message.targets, 0, "frisbee");
    ck_assert_uint_eq(message.texts.count, 0);
    ck_assert_str_eq(message.template, "a {}");
    image_message_release(&message);

    ck_assert(parse("{\"text\": [\"a\", \"b\", \"c\", \"d\"]}"));
    ck_assert_uint_eq(message.texts.count, 4);
    assert_text(&message.texts, 3, "d");
    image_message_release(&message);
    ck_assert(parse("{\"text\": \"\\u0000\"}")); /* for words_add() to refuse */
    ck_assert(message.texts.items[0].length == 1 && message.texts.items[0].text[0] == '\0');
    image_message_release(&message);
    ck_assert(parse("{}") && message.image_count == 0 && message.texts.count == 0);
    image_message_release(&message);
    image_message_release(&message);
}
END_TEST

START_TEST(test_messages_that_are_refused)
{
    static const struct {
        const char *text, *says;
        int status;
    } cases[] = {
        {"", "malformed", 400},
        {"[]", "the body: found", 400},
        {"{\"image\": 1}", "image: found 1", 400},
        {"{\"image\": [\"AAEC\", null]}", "image[1]: found null", 400},
        {"{\"image\": \"\"}", "image: ", 400},
        {"{\"image\": \"AAEC!\"}", "image: ", 400},
        {"{\"image\": {}}", "image: found", 400},
        {"{\"image\": \"AAEC\", \"image\": \"AAEC\"}", "image", 400},
        {"{\"labels\": \"a cat\"}", "labels: found", 400},
        {"{\"labels\": [\"a\", 2]}", "labels[1]: found 2, allowed is a text", 400},
        {"{\"labels\": [[\"a\"]]}", "labels[0]: found", 400},
        {"{\"target\": 7}", "target: found 7", 400},
        {"{\"target\": {\"a\": 1}}", "target: found", 400},
        {"{\"text\": true}", "text: found true", 400},
        {"{\"template\": \"a photo\"}", "template: found no {}", 400},
        {"{\"template\": [\"{}\"]}", "template: found", 400},
        {"{\"template\": \"{}\\u0000\"}", "template: ", 400},
        {"{\"lables\": [\"a\"]}", "lables", 400},
        {"{\"labels\": [\"a\"]", "malformed", 400},
        {"{\"labels\": [\"a\",]}", "malformed", 400},
        {"{\"labels\": [\"a\"]} x", "malformed", 400},
        {"{\"labels\": [\"\xFF\"]}", "UTF-8", 400},
        {"{\"labels\": [\"\\ud800\"]}", "malformed", 400},
        {"{\"labels\": [\"1\", \"2\", \"3\", \"4\", \"5\"]}", "labels[4]: one request may carry 4 texts", 413},
        {"{\"target\": [\"1\", \"2\", \"3\", \"4\", \"5\"]}", "target[4]: one request may carry 4 texts", 413},
        {"{\"text\": [\"1\", \"2\", \"3\", \"4\", \"5\"]}", "text[4]: one request may carry 4 texts", 413},
        {"{\"image\": [\"AAEC\", \"AAEC\", \"AAEC\", \"AAEC\"]}", "image[3]: one request may carry 3 images", 413}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_assert_msg(!parse(cases[i].text), "%s", cases[i].text);
        ck_assert_msg(problem.status == cases[i].status, "%s: %d", cases[i].text, problem.status);
        ck_assert_msg(strstr(problem.message, cases[i].says) != NULL, "%s: %s", cases[i].text, problem.message);
        ck_assert(message.memory == NULL && message.images == NULL && message.labels.items == NULL);
    }
}
END_TEST

/* Cut off anywhere it is malformed, and damaged anywhere it is read or refused. */
START_TEST(test_damaged_messages)
{
    static const char whole[] = "{\"image\":[\"AAEC\",\"/w==\"],\"labels\":[\"a\\u00e9\",\"\xC3\xA9\"],\"target\":\"x\","
                                "\"template\":\"a {} b\"}";
    const size_t length = sizeof whole - 1;
    char text[sizeof whole];
    ck_assert(parse_bytes(whole, length));
    image_message_release(&message);
    for (size_t cut = 0; cut < length; cut++) {
        ck_assert(!parse_bytes(whole, cut));
        ck_assert_str_eq(problem.code, "malformed_json");
    }
    for (size_t at = 0; at < length; at++)
        for (unsigned byte = 0; byte < 256; byte++) {
            memcpy(text, whole, length);
            text[at] = (char)byte;
            if (parse_bytes(text, length))
                image_message_release(&message);
            else if (problem.status != 400)
                ck_abort_msg("%zu, %u: %d %s", at, byte, problem.status, problem.message);
        }
}
END_TEST

/* What is decoded fits in as much memory as the body has, however it is spelt. */
START_TEST(test_messages_take_no_more_than_the_body)
{
    enum { TEXTS = 4 };
    char body[4096];
    size_t length = (size_t)sprintf(body, "{\"text\":[");
    for (int i = 0; i < TEXTS; i++) {
        body[length++] = '"';
        memset(body + length, 'a' + i, 900);
        length += 900;
        length += (size_t)sprintf(body + length, "\"%s", i + 1 < TEXTS ? "," : "]}");
    }
    ck_assert(parse_bytes(body, length));
    ck_assert_uint_eq(message.used, TEXTS * 900);
    for (size_t i = 0, at = 9; i < TEXTS; i++, at += 903) {
        ck_assert_uint_eq(message.texts.items[i].length, 900);
        ck_assert_mem_eq(message.texts.items[i].text, body + at + 1, 900);
    }
    image_message_release(&message);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("words");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, test_utf8_equals_utf8proc);
    tcase_add_test(tests, test_utf8_of_whole_texts);
    tcase_add_test(tests, test_texts_without_the_blanks_around_them);
    tcase_add_test(tests, test_texts_that_are_none);
    tcase_add_test(tests, test_lists);
    tcase_add_test(tests, test_templates);
    tcase_add_test(tests, test_embeddings_are_of_the_sentences);
    tcase_add_test(tests, test_message_is_read);
    tcase_add_test(tests, test_messages_that_are_refused);
    tcase_add_test(tests, test_damaged_messages);
    tcase_add_test(tests, test_messages_take_no_more_than_the_body);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
