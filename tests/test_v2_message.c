/* test_v2_message.c - requests and replies of the Open Inference Protocol v2, as clients send and read them. */
#include <check.h>
#include <math.h>
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/http/v2_message.h"
#include "server/http/v2_reply.h"
#include "tests/suite.h"

static const struct v2_limits limits = {.max_images = 3, .height = 2, .width = 1};
static struct v2_request request;
static struct problem problem;
static char *body; /* in a block of the exact size; its start is aligned as malloc aligns */

static void forget(void)
{
    v2_release(&request);
    free(body);
    body = NULL;
}

static bool parse_bytes(const void *bytes, size_t length, size_t json_length)
{
    forget();
    body = malloc(length ? length : 1);
    memcpy(body, bytes, length);
    problem = (struct problem){0};
    return v2_parse(&request, body, length, json_length, &limits, &problem);
}

static void assert_parsed(const char *json)
{
    ck_assert_msg(parse_bytes(json, strlen(json), V2_ALL_JSON), "%s: %s", json, problem.message);
    ck_assert_int_eq(problem.status, 0);
}

static void assert_refused(const char *json, const char *message)
{
    ck_assert_msg(!parse_bytes(json, strlen(json), V2_ALL_JSON), "%s", json);
    ck_assert_int_eq(problem.status, 400);
    ck_assert_str_eq(problem.message, message);
    ck_assert(request.images == NULL && request.memory == NULL);
}

/* JSON, then binary data. */
static bool parse_binary(const char *json, const void *data, size_t length)
{
    char bytes[512];
    memcpy(bytes, json, strlen(json));
    memcpy(bytes + strlen(json), data, length);
    return parse_bytes(bytes, strlen(json) + length, strlen(json));
}

static void assert_image(size_t i, const void *bytes, size_t length)
{
    ck_assert_uint_lt(i, request.image_count);
    ck_assert_uint_eq(request.images[i].length, length);
    ck_assert_mem_eq(request.images[i].bytes, bytes, length);
}

#define IMAGE(shape, data) \
    "{\"inputs\":[{\"name\":\"image\",\"datatype\":\"BYTES\",\"shape\":" shape ",\"data\":" data "}]}"
#define PIXELS(shape, data) \
    "{\"inputs\":[{\"name\":\"pixels\",\"datatype\":\"UINT8\",\"shape\":" shape ",\"data\":" data "}]}"
#define VALUES(shape, data) \
    "{\"inputs\":[{\"name\":\"pixel_values\",\"datatype\":\"FP32\",\"shape\":" shape ",\"data\":" data "}]}"
#define ONE "\"inputs\":[{\"name\":\"image\",\"datatype\":\"BYTES\",\"shape\":[1],\"data\":[\"QUJD\"]}]"

/* ---- inputs in JSON ---- */

START_TEST(test_files_in_json)
{
    assert_parsed(IMAGE("[2]", "[\"QUJD\", \"QQ==\"]"));
    ck_assert_int_eq(request.input.type, V2_BYTES);
    ck_assert_uint_eq(request.image_count, 2);
    assert_image(0, "ABC", 3);
    assert_image(1, "A", 1);
    assert_parsed(IMAGE("[2,1]", "[[\"QUI=\"],[\"QUJD\"]]"));
    assert_image(0, "AB", 2);
    assert_image(1, "ABC", 3);
    assert_parsed(IMAGE("[2,1]", "[\"QUI=\",\"QUJD\"]"));
    ck_assert_uint_eq(request.image_count, 2);
    assert_parsed(IMAGE("[1]", "[\"\\u002B\\/+/\"]")); /* .NET and PHP escape + and / */
    assert_image(0, "\xFB\xFF\xBF", 3);
}
END_TEST

START_TEST(test_pixels_in_json)
{
    static const uint8_t expected[] = {0, 1, 2, 253, 254, 255, 9, 8, 7, 6, 5, 4};
    static const char *const texts[] = {
        PIXELS("[2,1,2,3]", "[0,1,2,253,254,255,9,8,7,6,5,4]"),
        PIXELS("[2,1,2,3]", " [ [[[0,1,2],[253,254,255]]] , [[[9,8,7],[6,5,4]]] ] "),
    };
    for (size_t i = 0; i < 2; i++) {
        assert_parsed(texts[i]);
        ck_assert_int_eq(request.input.type, V2_UINT8);
        ck_assert_uint_eq(request.image_count, 2);
        ck_assert_uint_eq(request.input.height, 1);
        ck_assert_uint_eq(request.input.width, 2);
        assert_image(0, expected, 6);
        assert_image(1, expected + 6, 6);
    }
    assert_parsed(PIXELS("[2,1,3]", "[[[1,2,3]],[[4,5,6]]]"));
    ck_assert_uint_eq(request.image_count, 1);
    ck_assert_uint_eq(request.input.height, 2);
    ck_assert_uint_eq(request.input.width, 1);
    assert_image(0, "\1\2\3\4\5\6", 6);
}
END_TEST

START_TEST(test_pixel_values_in_json)
{
    static const float expected[] = {1.5f, -0.002f, 0, 0.12345679f, 1e3f, -7};
    assert_parsed(VALUES("[1,3,2,1]", "[1.5,-2e-3,0,0.12345678955316544,1E+3,-7]"));
    assert_image(0, expected, sizeof expected);
    ck_assert_uint_eq((uintptr_t)request.images[0].bytes % alignof(float), 0);
    assert_parsed(VALUES("[1,3,2,1]", "[[[[1.5],[-2e-3]],[[0],[0.12345678955316544]],[[1E+3],[-7]]]]"));
    assert_image(0, expected, sizeof expected);
    ck_assert_uint_eq(request.input.height, 2);
    ck_assert_uint_eq(request.input.width, 1);
}
END_TEST

START_TEST(test_members_come_in_any_order)
{
    assert_parsed("{\"outputs\":[{\"parameters\":{\"binary_data\":false},\"name\":\"logits\"}],"
                  "\"inputs\":[{\"data\":[\"QUJD\"],\"shape\":[1],\"parameters\":{\"anything\":[{}]},"
                  "\"datatype\":\"BYTES\",\"name\":\"image\",\"extra\":null}],"
                  "\"parameters\":{\"binary_data_output\":true,\"sequence_id\":7},\"model_name\":\"m\","
                  "\"id\":\"a\\u00e9\"}");
    assert_image(0, "ABC", 3);
    ck_assert_str_eq(request.id, "a\xC3\xA9");
    ck_assert_uint_eq(request.output_count, 1);
    ck_assert(!request.outputs[0].binary);
}
END_TEST

START_TEST(test_bad_inputs_are_refused)
{
    static const struct {
        const char *json, *message;
    } cases[] = {
        {"{}", "inputs: none is given, allowed is a list of one"},
        {"{\"inputs\":[]}", "inputs: none is given, allowed is a list of one"},
        {"{\"inputs\":{}}", "inputs: found an object, allowed is a list of one input"},
        {"{\"inputs\":[7]}", "inputs[0]: found 7, allowed is an object"},
        {"{" ONE "," ONE "}", "inputs: given more than once"},
        {"{\"inputs\":[{\"name\":\"input0\"}]}", "inputs[0].name: found \"input0\", allowed is \"image\" (BYTES), "
                                                 "\"pixels\" (UINT8) or \"pixel_values\" (FP32)"},
        {"{\"inputs\":[{\"datatype\":\"BYTES\",\"shape\":[1],\"data\":[]}]}",
         "inputs[0].name: missing, allowed is image, pixels or pixel_values"},
        {"{\"inputs\":[{\"name\":\"image\",\"shape\":[1],\"data\":[]}]}",
         "inputs[0].datatype: missing, allowed is BYTES"},
        {"{\"inputs\":[{\"name\":\"image\",\"datatype\":\"BYTES\",\"data\":[]}]}",
         "inputs[0].shape: missing, allowed is a list of 1 to 4 dimensions"},
        {"{\"inputs\":[{\"name\":\"image\",\"datatype\":\"BYTES\",\"shape\":[1]}]}",
         "inputs[0].data: missing, and there is no parameters.binary_data_size either"},
        {"{\"inputs\":[{\"name\":\"image\",\"name\":\"image\"}]}", "inputs[0].name: given more than once"},
        {"{\"inputs\":[{\"name\":\"image\",\"datatype\":\"FP64\"}]}",
         "inputs[0].datatype: found \"FP64\", allowed is \"BYTES\" (of image), \"UINT8\" (of pixels) or \"FP32\" (of "
         "pixel_values)"},
        {"{\"inputs\":[{\"name\":\"pixels\",\"datatype\":\"FP32\",\"shape\":[1],\"data\":[]}]}",
         "inputs[0].datatype: found FP32, allowed for pixels is UINT8"},
        {"{" ONE "} {}", "the JSON is malformed at byte 77: something follows the value"},
        {"{\"inputs\":[{\"name\":\"image\",\"datatype\":\"BYTES\",\"shape\":[1],\"data\":[\"QUJD\"]},{}]}",
         "inputs: found more than 1, allowed is a list of one input"},
        {"{\"inputs\":[{\"parameters\":[]}]}", "inputs[0].parameters: found a list, allowed is an object"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_refused(cases[i].json, cases[i].message);
}
END_TEST

START_TEST(test_bad_shapes_are_refused)
{
    static const struct {
        const char *json, *message;
    } cases[] = {
        {IMAGE("[1,-3]", "[]"), "inputs[0].shape[1]: found -3, allowed is a whole number from 1 to 2147483647"},
        {IMAGE("[0]", "[]"), "inputs[0].shape[0]: found 0, allowed is a whole number from 1 to 2147483647"},
        {IMAGE("[1.0]", "[]"), "inputs[0].shape[0]: found 1.0, allowed is a whole number from 1 to 2147483647"},
        {IMAGE("[\"1\"]", "[]"), "inputs[0].shape[0]: found \"1\", allowed is a whole number from 1 to 2147483647"},
        {IMAGE("[[1]]", "[]"), "inputs[0].shape[0]: found a list, allowed is a whole number from 1 to 2147483647"},
        {IMAGE("[18446744073709551617]", "[]"),
         "inputs[0].shape[0]: found 18446744073709551617, allowed is a whole number from 1 to 2147483647"},
        {IMAGE("[]", "[]"), "inputs[0].shape: missing, allowed is a list of 1 to 4 dimensions"},
        {IMAGE("[1,1,1,1,1]", "[]"), "inputs[0].shape: found more than 4, allowed is a list of 1 to 4 dimensions"},
        {IMAGE("1", "[]"), "inputs[0].shape: found 1, allowed is a list of 1 to 4 dimensions"},
        {IMAGE("[1,2]", "[]"), "inputs[0].shape: found [1,2], allowed for image is [N] or [N,1]"},
        {IMAGE("[4]", "[]"), "inputs[0].shape: found 4 images, allowed are 3 in one request"},
        {PIXELS("[1,2,2,4]", "[]"), "inputs[0].shape: found [1,2,2,4], allowed for pixels is [N,h,w,3] or [h,w,3]"},
        {PIXELS("[4,3]", "[]"), "inputs[0].shape: found [4,3], allowed for pixels is [N,h,w,3] or [h,w,3]"},
        {PIXELS("[4,1,1,3]", "[]"), "inputs[0].shape: found 4 images, allowed are 3 in one request"},
        {PIXELS("[3,2147483647,2147483647,3]", "[1]"), "inputs[0].shape: its elements are more than any memory holds"},
        {PIXELS("[2147483647,536870912,3]", "[1]"),
         "inputs[0].data: too short for the 3458764512209928192 elements of the shape"},
        {PIXELS("[100000,100000,3]", "[1]"), "inputs[0].data: too short for the 30000000000 elements of the shape"},
        {VALUES("[1,3,1,2]", "[]"), "inputs[0].shape: found [1,3,1,2], allowed for pixel_values is [N,3,2,1]"},
        {VALUES("[3,2,1]", "[]"), "inputs[0].shape: found [3,2,1], allowed for pixel_values is [N,3,2,1]"},
        {VALUES("[1000000000,3,2,1]", "[]"), "inputs[0].shape: found 1000000000 images, allowed are 3 in one request"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_refused(cases[i].json, cases[i].message);
}
END_TEST

START_TEST(test_bad_data_is_refused)
{
    static const char not_base64[] =
         "inputs[0].data element 1: not base64 after 2 of its 4 characters, allowed are A-Z a-z 0-9 + / in groups of "
        "four, the last one filled up with =";
    static const struct {
        const char *json, *message;
    } cases[] = {
        {IMAGE("[1]", "\"QUJD\""), "inputs[0].data: found \"QUJD\", allowed is a list, flat or nested as the shape is"},
        {IMAGE("[1]", "[65,66,67]"), "inputs[0].data element 0: found 65, allowed is a picture as a string of base64"},
        {IMAGE("[1]", "[[\"QUJD\"]]"),
         "inputs[0].data element 0: found a list, allowed is a picture as a string of base64"},
        {IMAGE("[1]", "[\"\"]"), "inputs[0].data element 0: found \"\", allowed is a picture as a string of base64"},
        {IMAGE("[2]", "[\"QUJD\",\"QQ=A\"]"), not_base64},
        {IMAGE("[2]", "[\"QUJD\"]"), "inputs[0].data: a list has 1 elements, the shape needs 2"},
        {IMAGE("[1]", "[\"QUJD\",\"QUJD\"]"), "inputs[0].data: a list has more than the 1 elements of the shape"},
        {PIXELS("[1,1,3]", "[0,0,256]"),
         "inputs[0].data element 2: found 256, allowed is a whole number from 0 to 255"},
        {PIXELS("[1,1,3]", "[0,-1,0]"), "inputs[0].data element 1: found -1, allowed is a whole number from 0 to 255"},
        {PIXELS("[1,1,3]", "[0.5,0,0]"),
         "inputs[0].data element 0: found 0.5, allowed is a whole number from 0 to 255"},
        {PIXELS("[1,1,3]", "[0,0,\"a\"]"),
         "inputs[0].data element 2: found \"a\", allowed is a whole number from 0 to 255"},
        {PIXELS("[1,1,3]", "[0,0,0,0]"), "inputs[0].data: a list has more than the 3 elements of the shape"},
        {PIXELS("[1,1,3]", "[0,  0]"), "inputs[0].data: a list has 2 elements, the shape needs 3"},
        {PIXELS("[1,1,3]", "[[[0,0,0],[0,0,0]]]"), "inputs[0].data: a list has more than the 1 elements of the shape"},
        {PIXELS("[1,2,3]", "[[[0,0,0],[0,0]]]"), "inputs[0].data: a list has 2 elements, the shape needs 3"},
        {PIXELS("[1,2,3]", "[[[0,0,0],7,[8]]]"),
         "inputs[0].data element 3: found 7, allowed is a list, nested as the shape is"},
        {PIXELS("[1,2,3]", "[[0,0,0],[0,0,0]]"),
         "inputs[0].data element 0: found 0, allowed is a list, nested as the shape is"},
        {VALUES("[1,3,2,1]", "[0,0,0,0,0,1e39]"),
         "inputs[0].data element 5: found 1e39, allowed is a number in the range of FP32, of at most 127 characters"},
        {VALUES("[1,3,2,1]", "[0,0,null,0,0,0]"),
         "inputs[0].data element 2: found null, allowed is a number in the range of FP32, of at most 127 characters"},
        {VALUES("[1,3,2,1]", "[0,0,NaN,0,0,0]"), "the JSON is malformed at byte 82: a value belongs here"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_refused(cases[i].json, cases[i].message);
}
END_TEST

/* ---- inputs in binary ---- */

#define BINARY(name, type, shape, size) \
    "{\"inputs\":[{\"name\":\"" name "\",\"datatype\":\"" type "\",\"shape\":" shape \
    ",\"parameters\":{\"binary_data_size\":" size "}}]}"

START_TEST(test_files_in_binary)
{
    ck_assert(parse_binary(BINARY("image", "BYTES", "[2]", "13"), "\3\0\0\0abc\2\0\0\0de", 13));
    assert_image(0, "abc", 3);
    assert_image(1, "de", 2);
    ck_assert_ptr_eq(request.images[1].bytes, body + strlen(BINARY("image", "BYTES", "[2]", "13")) + 11);
}
END_TEST

START_TEST(test_pixels_in_binary)
{
    ck_assert(parse_binary(BINARY("pixels", "UINT8", "[2,1,1,3]", "6"), "rgbRGB", 6));
    assert_image(0, "rgb", 3);
    assert_image(1, "RGB", 3);
    ck_assert_ptr_null(request.memory);
}
END_TEST

START_TEST(test_pixel_values_in_binary_are_aligned)
{
    const float values[12] = {1, 2, 3, 4, 5, 6, -1, -2, -3, -4, -5, -6};
    char json[128];
    bool copied = false, in_place = false;
    for (int spaces = 0; spaces < 4; spaces++) {
        snprintf(json, sizeof json, "%s%.*s", BINARY("pixel_values", "FP32", "[2,3,2,1]", "48"), spaces, "    ");
        ck_assert(parse_binary(json, values, sizeof values));
        assert_image(0, values, 24);
        assert_image(1, values + 6, 24);
        ck_assert_uint_eq((uintptr_t)request.images[0].bytes % alignof(float), 0);
        copied |= request.memory != NULL;
        in_place |= request.memory == NULL;
    }
    ck_assert(copied && in_place);
}
END_TEST

START_TEST(test_infinite_values_are_refused)
{
    const float bad[] = {INFINITY, -INFINITY, NAN};
    for (size_t i = 0; i < 3; i++) {
        const float values[6] = {0, 0, 0, 0, bad[i], 0};
        ck_assert(!parse_binary(BINARY("pixel_values", "FP32", "[1,3,2,1]", "24"), values, sizeof values));
        ck_assert_str_eq(problem.message,
                         "inputs[0].parameters.binary_data_size: element 4 is infinite or not a number");
        ck_assert(request.images == NULL && request.memory == NULL);
    }
}
END_TEST

START_TEST(test_binary_sizes_must_add_up)
{
#define PLACE "inputs[0].parameters.binary_data_size: "
    static const struct {
        const char *json, *data;
        size_t length;
        const char *message;
    } cases[] = {
        {BINARY("pixels", "UINT8", "[1,1,3]", "3"), "rgbx", 4, PLACE "found 3, and 4 bytes follow the JSON"},
        {BINARY("pixels", "UINT8", "[1,1,3]", "3"), "rg", 2, PLACE "found 3, and 2 bytes follow the JSON"},
        {BINARY("pixels", "UINT8", "[1,1,3]", "4"), "rgbx", 4, PLACE "found 4, the shape needs 3"},
        {BINARY("pixels", "UINT8", "[1,1,3]", "0"), "", 0, PLACE "found 0, the shape needs 3"},
        {BINARY("pixels", "UINT8", "[2147483647,536870912,3]", "3"), "rgb", 3,
         PLACE "found 3, the shape needs 3458764512209928192"},
        {BINARY("pixel_values", "FP32", "[1,3,2,1]", "6"), "123456", 6, PLACE "found 6, the shape needs 24"},
        {BINARY("image", "BYTES", "[1]", "3"), "\1\0\0", 3, PLACE "the data ends before the length of element 0 of 1"},
        {BINARY("image", "BYTES", "[2]", "5"), "\1\0\0\0a", 5,
         PLACE "the data ends before the length of element 1 of 2"},
        {BINARY("image", "BYTES", "[1]", "5"), "\2\0\0\0a", 5,
         PLACE "element 0 states 2 bytes, allowed is 1 to the 1 that are left"},
        {BINARY("image", "BYTES", "[1]", "5"), "\xFF\xFF\xFF\xFF" "a", 5,
         PLACE "element 0 states 4294967295 bytes, allowed is 1 to the 1 that are left"},
        {BINARY("image", "BYTES", "[1]", "4"), "\0\0\0\0", 4,
         PLACE "element 0 states 0 bytes, allowed is 1 to the 0 that are left"},
        {BINARY("image", "BYTES", "[1]", "6"), "\1\0\0\0ab", 6,
         PLACE "1 bytes are left after the 1 elements of the shape"},
        {BINARY("image", "BYTES", "[1]", "-1"), "", 0,
         PLACE "found -1, allowed is a whole number from 0 to 9223372036854775807"},
        {"{\"inputs\":[{\"name\":\"image\",\"datatype\":\"BYTES\",\"shape\":[1],\"data\":[\"QUJD\"],\"parameters\":"
         "{\"binary_data_size\":5}}]}", "\1\0\0\0a", 5, PLACE "the input has its data in JSON, allowed is one of both"},
        {"{" ONE "}", "abc", 3, "the body: 3 bytes follow the JSON, and no input has parameters.binary_data_size"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_assert_msg(!parse_binary(cases[i].json, cases[i].data, cases[i].length), "case %zu", i);
        ck_assert_int_eq(problem.status, 400);
        ck_assert_str_eq(problem.message, cases[i].message);
    }
    assert_refused(BINARY("pixels", "UINT8", "[1,1,3]", "3"),
                   PLACE "needs the header Inference-Header-Content-Length, the JSON's length");
    ck_assert(!parse_bytes("{}", 2, 3));
    ck_assert_str_eq(problem.message, "the header Inference-Header-Content-Length: found 3, and the body has 2 bytes");
    ck_assert(!parse_bytes("{" ONE "}", 20, 10));
    ck_assert_str_eq(problem.code, "malformed_json");
}
END_TEST

START_TEST(test_raw_body_is_one_file)
{
    ck_assert(parse_bytes("\xFF\xD8\xFF", 3, V2_RAW));
    ck_assert_ptr_eq(request.images[0].bytes, body);
    assert_image(0, "\xFF\xD8\xFF", 3);
    ck_assert_uint_eq(request.input.dimensions, 1);
    ck_assert_uint_eq(request.output_count, V2_OUTPUT_COUNT);
    for (size_t i = 0; i < V2_OUTPUT_COUNT; i++)
        ck_assert(request.outputs[i].binary && request.outputs[i].tensor == (enum v2_tensor)i);
    ck_assert(!parse_bytes("", 0, V2_RAW));
    ck_assert_int_eq(problem.status, 400);
}
END_TEST

/* ---- what is asked for ---- */

START_TEST(test_all_outputs_unless_named)
{
    static const char *const texts[] = {"{" ONE "}", "{" ONE ",\"outputs\":[]}"};
    for (size_t i = 0; i < 2; i++) {
        assert_parsed(texts[i]);
        ck_assert_uint_eq(request.output_count, V2_OUTPUT_COUNT);
        for (size_t k = 0; k < V2_OUTPUT_COUNT; k++) {
            ck_assert_int_eq(request.outputs[k].tensor, k);
            ck_assert(!request.outputs[k].binary && !request.outputs[k].classification);
        }
    }
    assert_parsed("{" ONE ",\"parameters\":{\"binary_data_output\":true}}");
    ck_assert(request.outputs[0].binary && request.outputs[2].binary);
}
END_TEST

START_TEST(test_outputs_as_asked)
{
    assert_parsed("{\"outputs\":[{\"name\":\"embedding\",\"parameters\":{\"binary_data\":false}},"
                  "{\"name\":\"probabilities\",\"parameters\":{\"classification\":5,\"shared_memory_region\":\"x\"}}],"
                  "\"parameters\":{\"binary_data_output\":true}," ONE "}");
    ck_assert_uint_eq(request.output_count, 2);
    ck_assert_int_eq(request.outputs[0].tensor, V2_EMBEDDING);
    ck_assert(!request.outputs[0].binary && !request.outputs[0].classification);
    ck_assert_int_eq(request.outputs[1].tensor, V2_PROBABILITIES);
    ck_assert(request.outputs[1].binary);
    ck_assert_uint_eq(request.outputs[1].classification, 5);
}
END_TEST

START_TEST(test_request_parameters)
{
    assert_parsed("{" ONE ",\"parameters\":{\"priority\":4294967295,\"timeout\":9223372036854775807,\"custom\":1.5}}");
    ck_assert_uint_eq(request.priority, 4294967295u);
    ck_assert_int_eq(request.timeout_us, INT64_MAX);
    assert_parsed("{" ONE "}");
    ck_assert_uint_eq(request.priority, 0);
    ck_assert_int_eq(request.timeout_us, 0);
    ck_assert_str_eq(request.id, "");
}
END_TEST

START_TEST(test_bad_outputs_and_parameters_are_refused)
{
    static const struct {
        const char *json, *message;
    } cases[] = {
        {"{" ONE ",\"outputs\":[{\"name\":\"scores\"}]}",
         "outputs[0].name: found \"scores\", allowed is \"logits\", \"probabilities\" or \"embedding\""},
        {"{" ONE ",\"outputs\":[{}]}", "outputs[0].name: missing, allowed is logits, probabilities or embedding"},
        {"{" ONE ",\"outputs\":[{\"name\":\"logits\"},{\"name\":\"logits\"}]}",
         "outputs[1]: logits is asked for twice"},
        {"{" ONE ",\"outputs\":[{\"name\":\"logits\",\"parameters\":{\"binary_data\":1}}]}",
         "outputs[0].parameters.binary_data: found 1, allowed is true or false"},
        {"{" ONE ",\"outputs\":[{\"name\":\"logits\",\"parameters\":{\"classification\":0}}]}",
         "outputs[0].parameters.classification: found 0, allowed is a whole number from 1 to 2147483647"},
        {"{" ONE ",\"outputs\":[{\"parameters\":{\"classification\":1},\"name\":\"embedding\"}]}",
         "outputs[0].parameters.classification: the embedding has no classes, allowed for logits and probabilities"},
        {"{" ONE ",\"outputs\":\"logits\"}", "outputs: found \"logits\", allowed is a list of outputs, each once"},
        {"{" ONE ",\"parameters\":{\"priority\":-1}}",
         "parameters.priority: found -1, allowed is a whole number from 0 to 4294967295"},
        {"{" ONE ",\"parameters\":{\"priority\":true}}",
         "parameters.priority: found true, allowed is a whole number from 0 to 4294967295"},
        {"{" ONE ",\"parameters\":{\"timeout\":1e6}}",
         "parameters.timeout: found 1e6, allowed is a whole number from 0 to 9223372036854775807"},
        {"{" ONE ",\"parameters\":{\"timeout\":1,\"timeout\":2}}", "parameters.timeout: given more than once"},
        {"{" ONE ",\"parameters\":{\"binary_data_output\":\"true\"}}",
         "parameters.binary_data_output: found \"true\", allowed is true or false"},
        {"{" ONE ",\"id\":42}", "id: found 42, allowed is a string of at most 128 bytes, none of them NUL"},
        {"{" ONE ",\"id\":\"a\\u0000b\"}",
         "id: found \"a\\u0000b\", allowed is a string of at most 128 bytes, none of them NUL"},
        {"[]", "the body: found a list, allowed is an object"},
        {"", "the JSON is malformed at byte 0: it ends where a value belongs"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_refused(cases[i].json, cases[i].message);
}
END_TEST

START_TEST(test_id_has_128_bytes_at_most)
{
    char json[400], id[V2_MAX_ID + 2];
    memset(id, 'x', sizeof id);
    for (int length = V2_MAX_ID; length <= V2_MAX_ID + 1; length++) {
        snprintf(json, sizeof json, "{\"id\":\"%.*s\"," ONE "}", length, id);
        ck_assert(parse_bytes(json, strlen(json), V2_ALL_JSON) == (length == V2_MAX_ID));
    }
}
END_TEST

/* A body cut off anywhere is refused. */
START_TEST(test_cut_bodies_are_refused)
{
    static const char json[] = PIXELS("[1,2,1,3]", "[[[[0,1,2]],[[3,4,5]]]]");
    for (size_t length = 0; length < sizeof json - 1; length++) {
        ck_assert_msg(!parse_bytes(json, length, V2_ALL_JSON), "%zu", length);
        ck_assert_str_eq(problem.code, "malformed_json");
    }
    ck_assert(parse_bytes(json, sizeof json - 1, V2_ALL_JSON));
}
END_TEST

/* ---- replies ---- */

static const char *label(const void *model, size_t index)
{
    return ((const char *const *)model)[index];
}

static const float logits[2][3] = {{1, 3, 2}, {-1, -1, 0}}, features[2][2] = {{0.5f, -2}, {3, 4}};
static const float *const logit_rows[] = {logits[0], logits[1]}, *const feature_rows[] = {features[0], features[1]};
static const char *const labels[] = {"cat", "d\"g", "fox"};
static const struct v2_result result = {.model_name = "vit",
                                        .model_version = "1",
                                        .images = 2,
                                        .classes = 3,
                                        .embedding_width = 2,
                                        .logits = logit_rows,
                                        .features = feature_rows,
                                        .label = label,
                                        .model = labels};

START_TEST(test_reply_in_json)
{
    const struct v2_request asked = {.id = "a\"b", .output_count = 2,
                                     .outputs = {{.tensor = V2_EMBEDDING}, {.tensor = V2_LOGITS}}};
    struct strbuf out = {0};
    ck_assert_uint_eq(v2_reply_infer(&out, &asked, &result), V2_ALL_JSON);
    ck_assert_str_eq(out.data, "{\"model_name\":\"vit\",\"model_version\":\"1\",\"id\":\"a\\\"b\",\"outputs\":["
                               "{\"name\":\"embedding\",\"datatype\":\"FP32\",\"shape\":[2,2],\"data\":[0.5,-2,3,4]},"
                               "{\"name\":\"logits\",\"datatype\":\"FP32\",\"shape\":[2,3],\"data\":[1,3,2,-1,-1,"
                               "0]}]}");
    strbuf_release(&out);
}
END_TEST

START_TEST(test_reply_in_binary)
{
    static const char json[] =
        "{\"model_name\":\"vit\",\"model_version\":\"1\",\"outputs\":["
        "{\"name\":\"logits\",\"datatype\":\"FP32\",\"shape\":[2,3],\"parameters\":{\"binary_data_size\":24}},"
        "{\"name\":\"embedding\",\"datatype\":\"FP32\",\"shape\":[2,2],\"data\":[0.5,-2,3,4]},"
        "{\"name\":\"probabilities\",\"datatype\":\"FP32\",\"shape\":[2,3],\"parameters\":{\"binary_data_size\":24}}]}";
    const struct v2_request asked = {.output_count = 3,
                                     .outputs = {{.tensor = V2_LOGITS, .binary = true},
                                                 {.tensor = V2_EMBEDDING},
                                                 {.tensor = V2_PROBABILITIES, .binary = true}}};
    struct strbuf out = {0};
    float probabilities[6];
    ck_assert_uint_eq(v2_reply_infer(&out, &asked, &result), sizeof json - 1);
    ck_assert_uint_eq(out.length, sizeof json - 1 + 48);
    ck_assert_mem_eq(out.data, json, sizeof json - 1);
    ck_assert_mem_eq(out.data + sizeof json - 1, logits, 24);
    memcpy(probabilities, out.data + sizeof json - 1 + 24, 24);
    ck_assert_float_eq_tol(probabilities[0] + probabilities[1] + probabilities[2], 1, 1e-6f);
    ck_assert_float_eq_tol(probabilities[1] / probabilities[0], expf(2), 1e-4f);
    ck_assert_float_eq_tol(probabilities[5] / probabilities[4], expf(1), 1e-4f);
    strbuf_release(&out);
}
END_TEST

START_TEST(test_reply_with_classes)
{
    struct v2_request asked = {.output_count = 1, .outputs = {{.tensor = V2_LOGITS, .classification = 2}}};
    struct v2_result unversioned = result;
    static const char reply[] = "{\"model_name\":\"vit\",\"outputs\":[{\"name\":\"logits\",\"datatype\":\"BYTES\","
                                "\"shape\":[2,2],\"parameters\":{\"binary_data_size\":45}}]}"
                                "\7\0\0\0" "3:1:d\"g" "\7\0\0\0" "2:2:fox" "\7\0\0\0" "0:2:fox" "\10\0\0\0" "-1:0:cat";
    struct strbuf out = {0};
    unversioned.model_version = NULL;
    v2_reply_infer(&out, &asked, &unversioned);
    ck_assert_str_eq(out.data, "{\"model_name\":\"vit\",\"outputs\":[{\"name\":\"logits\",\"datatype\":\"BYTES\","
                               "\"shape\":[2,2],\"data\":[\"3:1:d\\\"g\",\"2:2:fox\",\"0:2:fox\",\"-1:0:cat\"]}]}");
    strbuf_release(&out);
    asked.outputs[0].binary = true;
    ck_assert_uint_eq(v2_reply_infer(&out, &asked, &unversioned), sizeof reply - 1 - 45);
    ck_assert_uint_eq(out.length, sizeof reply - 1);
    ck_assert_mem_eq(out.data, reply, sizeof reply - 1);
    strbuf_release(&out);
    asked.outputs[0] = (struct v2_output){.tensor = V2_LOGITS, .classification = 1000};
    v2_reply_infer(&out, &asked, &unversioned);
    ck_assert_ptr_nonnull(strstr(out.data, "\"shape\":[2,3],\"data\":[\"3:1:d\\\"g\",\"2:2:fox\",\"1:0:cat\",\"0:2:"
                                           "fox\","));
    strbuf_release(&out);
}
END_TEST

START_TEST(test_reply_of_metadata)
{
    const struct v2_model model = {"v\"it", (const int[]){3, 4}, 2, 224, 160, 1000, 192};
    const struct v2_index_entry entries[] = {{"a", "1", "READY", NULL}, {"b", NULL, "UNAVAILABLE", "it \"failed\""}};
    struct strbuf out = {0};
    v2_reply_server(&out, "0.1.0");
    ck_assert_str_eq(out.data, "{\"name\":\"vitd\",\"version\":\"0.1.0\",\"extensions\":[\"binary_tensor_data\","
                               "\"classification\",\"statistics\",\"model_repository\"]}");
    strbuf_release(&out);
    v2_reply_model(&out, &model);
    ck_assert_str_eq(out.data, "{\"name\":\"v\\\"it\",\"versions\":[\"3\",\"4\"],\"platform\":\"vitd\","
                               "\"inputs\":[{\"name\":\"image\",\"datatype\":\"BYTES\",\"shape\":[-1]},"
                               "{\"name\":\"pixels\",\"datatype\":\"UINT8\",\"shape\":[-1,-1,-1,3]},"
                               "{\"name\":\"pixel_values\",\"datatype\":\"FP32\",\"shape\":[-1,3,224,160]}],"
                               "\"outputs\":[{\"name\":\"logits\",\"datatype\":\"FP32\",\"shape\":[-1,1000]},"
                               "{\"name\":\"probabilities\",\"datatype\":\"FP32\",\"shape\":[-1,1000]},"
                               "{\"name\":\"embedding\",\"datatype\":\"FP32\",\"shape\":[-1,192]}]}");
    strbuf_release(&out);
    v2_reply_index(&out, entries, 2);
    ck_assert_str_eq(out.data, "[{\"name\":\"a\",\"version\":\"1\",\"state\":\"READY\",\"reason\":\"\"},"
                               "{\"name\":\"b\",\"state\":\"UNAVAILABLE\",\"reason\":\"it \\\"failed\\\"\"}]");
    strbuf_release(&out);
    v2_reply_index(&out, NULL, 0);
    ck_assert_str_eq(out.data, "[]");
    strbuf_release(&out);
}
END_TEST

START_TEST(test_reply_of_statistics)
{
    const struct v2_batch_stats batches[] = {{1, {1, 2}, {3, 4}, {5, 6}}, {8, {7, 8}, {9, 10}, {11, 12}}};
    const struct v2_model_stats models[] = {
        {"a", "1", 1700000000123, 20, 12, {1, 11}, {2, 12}, {3, 13}, {4, 14}, {5, 15}, {6, 16}, {7, 17},
         {8, UINT64_MAX}, batches, 2},
        {.name = "b"},
    };
    struct strbuf out = {0};
    v2_reply_stats(&out, models, 2);
    ck_assert_str_eq(
        out.data,
        "{\"model_stats\":[{\"name\":\"a\",\"version\":\"1\",\"last_inference\":1700000000123,\"inference_count\":20,"
        "\"execution_count\":12,\"inference_stats\":{\"success\":{\"count\":1,\"ns\":11},\"fail\":{\"count\":2,"
        "\"ns\":12},\"queue\":{\"count\":3,\"ns\":13},\"compute_input\":{\"count\":4,\"ns\":14},"
        "\"compute_infer\":{\"count\":5,\"ns\":15},\"compute_output\":{\"count\":6,\"ns\":16},"
        "\"cache_hit\":{\"count\":7,\"ns\":17},\"cache_miss\":{\"count\":8,\"ns\":18446744073709551615}},"
        "\"batch_stats\":[{\"batch_size\":1,\"compute_input\":{\"count\":1,\"ns\":2},\"compute_infer\":{\"count\":3,"
        "\"ns\":4},\"compute_output\":{\"count\":5,\"ns\":6}},{\"batch_size\":8,\"compute_input\":{\"count\":7,"
        "\"ns\":8},\"compute_infer\":{\"count\":9,\"ns\":10},\"compute_output\":{\"count\":11,\"ns\":12}}]},"
        "{\"name\":\"b\",\"last_inference\":0,\"inference_count\":0,\"execution_count\":0,"
        "\"inference_stats\":{\"success\":{\"count\":0,\"ns\":0},\"fail\":{\"count\":0,\"ns\":0},"
        "\"queue\":{\"count\":0,\"ns\":0},\"compute_input\":{\"count\":0,\"ns\":0},\"compute_infer\":{\"count\":0,"
        "\"ns\":0},\"compute_output\":{\"count\":0,\"ns\":0},\"cache_hit\":{\"count\":0,\"ns\":0},"
        "\"cache_miss\":{\"count\":0,\"ns\":0}},\"batch_stats\":[]}]}");
    strbuf_release(&out);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("v2_message");
    TCase *tests = tcase_create("all");
    tcase_add_checked_fixture(tests, NULL, forget);
    tcase_add_test(tests, test_files_in_json);
    tcase_add_test(tests, test_pixels_in_json);
    tcase_add_test(tests, test_pixel_values_in_json);
    tcase_add_test(tests, test_members_come_in_any_order);
    tcase_add_test(tests, test_bad_inputs_are_refused);
    tcase_add_test(tests, test_bad_shapes_are_refused);
    tcase_add_test(tests, test_bad_data_is_refused);
    tcase_add_test(tests, test_files_in_binary);
    tcase_add_test(tests, test_pixels_in_binary);
    tcase_add_test(tests, test_pixel_values_in_binary_are_aligned);
    tcase_add_test(tests, test_infinite_values_are_refused);
    tcase_add_test(tests, test_binary_sizes_must_add_up);
    tcase_add_test(tests, test_raw_body_is_one_file);
    tcase_add_test(tests, test_all_outputs_unless_named);
    tcase_add_test(tests, test_outputs_as_asked);
    tcase_add_test(tests, test_request_parameters);
    tcase_add_test(tests, test_bad_outputs_and_parameters_are_refused);
    tcase_add_test(tests, test_id_has_128_bytes_at_most);
    tcase_add_test(tests, test_cut_bodies_are_refused);
    tcase_add_test(tests, test_reply_in_json);
    tcase_add_test(tests, test_reply_in_binary);
    tcase_add_test(tests, test_reply_with_classes);
    tcase_add_test(tests, test_reply_of_metadata);
    tcase_add_test(tests, test_reply_of_statistics);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
