#include "engine/math/cpu.h"

#include <cblas.h>
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
