#include "engine/math/cpu.h"

#include <cblas.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <string.h>

#include "vit.h"

size_t kernels_available(const struct kernels *tables[3])
{
    size_t count = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f"))
        tables[count++] = &kernels_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        tables[count++] = &kernels_avx2;
#endif
    tables[count++] = &kernels_generic;
    return count;
}

const struct kernels *kernels_best(void)
{
    const struct kernels *tables[3];
    kernels_available(tables);
    return tables[0];
}

#if defined(__x86_64__)
/* EVEX-encoded and VEX-encoded VNNI are told apart by CPUID leaf 7, subleaf 1, EAX bit 4; GCC 12 knows no name for it. */
static bool has_avx_vnni(void)
{
    unsigned a = 0, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & 1u << 4) != 0;
}
#endif

size_t products_available(const struct products *tables[MAX_PRODUCTS], vit_dtype dtype)
{
    static const struct products *const generic[] = {&products_fp32_generic, &products_bf16_generic,
                                                     &products_int8_generic};
    size_t count = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl");
    if (dtype == VIT_DTYPE_FP32 && __builtin_cpu_supports("avx512f"))
        tables[count++] = &products_fp32_avx512;
    if (dtype == VIT_DTYPE_FP32 && avx2)
        tables[count++] = &products_fp32_avx2;
    if (dtype == VIT_DTYPE_BF16 && avx512 && __builtin_cpu_supports("avx512bf16"))
        tables[count++] = &products_bf16_avx512;
    if (dtype == VIT_DTYPE_INT8 && avx512 && __builtin_cpu_supports("avx512vnni"))
        tables[count++] = &products_int8_avx512;
    if (dtype == VIT_DTYPE_INT8 && avx2 && has_avx_vnni())
        tables[count++] = &products_int8_avx2;
#endif
    tables[count++] = generic[dtype];
    return count;
}

const struct products *products_best(vit_dtype dtype)
{
    const struct products *tables[MAX_PRODUCTS];
    const size_t count = products_available(tables, dtype);
    return dtype == VIT_DTYPE_FP32 && count == 1 ? NULL : tables[0];
}

bool vit_dtype_is_fast(vit_dtype dtype)
{
    const struct products *tables[MAX_PRODUCTS];
    return products_available(tables, dtype) > 1;
}

vit_dtype vit_dtype_auto(void)
{
    return vit_dtype_is_fast(VIT_DTYPE_BF16) ? VIT_DTYPE_BF16 : VIT_DTYPE_FP32;
}

const char *vit_dtype_name(vit_dtype dtype)
{
    static const char *const names[] = {"fp32", "bf16", "int8"};
    return names[dtype];
}

const char *vit_kernels_name(void)
{
    return kernels_best()->name;
}

void vit_blas_init(void)
{
    openblas_set_num_threads(1);
}

#if defined(__x86_64__)
static bool is_one_of(const char *name, const char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcasecmp(name, list[i]) == 0)
            return true;
    return false;
}
#endif

const char *vit_blas_core(void)
{
    return openblas_get_corename();
}

const char *vit_blas_better_core(void)
{
#if defined(__x86_64__)
    static const char *const avx512_cores[] = {"SkylakeX", "Cooperlake", "SapphireRapids"};
    static const char *const avx2_cores[] = {"Haswell", "Zen"};
    const char *core = openblas_get_corename();
    __builtin_cpu_init();
    if (is_one_of(core, avx512_cores, 3))
        return NULL;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        return "SkylakeX";
    if (is_one_of(core, avx2_cores, 2))
        return NULL;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return "Haswell";
#endif
    return NULL;
}
