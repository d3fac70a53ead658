/* vit_status.h - how every fallible function of libvit reports: a status for programs, a sentence for people. */
#ifndef VIT_STATUS_H
#define VIT_STATUS_H

typedef enum vit_status {
    VIT_OK = 0,
    VIT_ERR_ARGUMENT,     /* the caller asked for something that does not exist */
    VIT_ERR_NO_MEMORY,
    VIT_ERR_IO,           /* a file could not be opened or read */
    VIT_ERR_FORMAT,       /* a model folder is damaged or inconsistent */
    VIT_ERR_UNSUPPORTED,  /* sound, but beyond what this library runs */
    VIT_ERR_IMAGE_TYPE,   /* bytes that are no image format we decode */
    VIT_ERR_IMAGE_DAMAGED,/* a known format, but it cannot be decoded */
    VIT_ERR_IMAGE_SIZE    /* more pixels than allowed */
} vit_status;

/* Caller-owned; written only when the status is not VIT_OK. Any function takes NULL for "no sentence wanted". */
typedef struct vit_error {
    char message[384];
} vit_error;

#endif
