/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_safetensors_write.c: what is written reads back the same, and nothing half-written is ever
 * left behind.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file_replace.h"
#include "safetensors_read.h"
#include "safetensors_write.h"
#include "scratch_files.h"

static const float values[6] = {1, -2, 3.5F, 0, -0.0F, 1e-40F};

/* How many of the next random numbers are the same one. */
static int same_numbers;

/* In the C library's place. */
int getentropy(void *buffer, size_t bytes) {
    if (same_numbers > 0) {
        same_numbers--;
        memset(buffer, 0x5a, bytes);
        return 0;
    }
    return getrandom(buffer, bytes, 0) == (ssize_t)bytes ? 0 : -1;
}

static void save(const char *path, const safetensors_entry *tensors, int64_t count,
                 const safetensors_text *texts, int64_t text_count) {
    char error[500] = "";
    if (safetensors_save(path, tensors, count, texts, text_count, error, sizeof error) != 0) {
        fail_msg("%s", error);
    }
}

static safetensors_file *reopen(const char *path) {
    char error[500] = "";
    safetensors_file *file = NULL;
    if (safetensors_open(path, &file, error, sizeof error) != 0) {
        fail_msg("%s", error);
    }
    return file;
}

static void writer_tensors_and_metadata_read_back_the_same(void **state) {
    char path[SCRATCH_PATH_BYTES];
    const uint8_t mask[3] = {0, 1, 1};
    const safetensors_entry tensors[] = {
        {.name = "attn_output",
         .dtype = "F32",
         .rank = 3,
         .shape = {1, 2, 3},
         .data = values,
         .data_bytes = sizeof values},
        {.name = "mask",
         .dtype = "BOOL",
         .rank = 1,
         .shape = {3},
         .data = mask,
         .data_bytes = sizeof mask},
        {.name = "empty",
         .dtype = "F64",
         .rank = 2,
         .shape = {0, 4},
         .data = NULL,
         .data_bytes = 0},
        {.name = "scalar", .dtype = "F32", .rank = 0, .data = values, .data_bytes = 4},
    };
    const safetensors_text texts[] = {{"tokens.0", "[\"a \\\"quoted\\\" word\",\"\xc3\xbc\"]"},
                                      {"note", "line\nbreak \x01"}};
    save(scratch_path(state, "out.safetensors", path), tensors, 4, texts, 2);

    safetensors_file *file = reopen(path);
    assert_int_equal(safetensors_count(file), 4);
    for (size_t i = 0; i < 4; i++) {
        const safetensors_entry *entry = safetensors_find(file, tensors[i].name);
        assert_non_null(entry);
        assert_string_equal(entry->dtype, tensors[i].dtype);
        assert_int_equal(entry->rank, tensors[i].rank);
        assert_memory_equal(entry->shape, tensors[i].shape, sizeof entry->shape);
        assert_int_equal(entry->data_bytes, tensors[i].data_bytes);
        if (entry->data_bytes > 0) {
            assert_memory_equal(entry->data, tensors[i].data, entry->data_bytes);
        }
    }
    assert_string_equal(safetensors_metadata(file, "tokens.0"), texts[0].value);
    assert_string_equal(safetensors_metadata(file, "note"), texts[1].value);
    safetensors_close(file);
    assert_int_equal(scratch_count(state), 1);
}

static void writer_data_begins_at_a_multiple_of_eight(void **state) {
    char path[SCRATCH_PATH_BYTES];
    char name[] = "aaaaaaaa";
    for (size_t length = 1; length <= 8; length++) {
        size_t bytes = 0;
        safetensors_entry tensor = {.name = name + 8 - length,
                                    .dtype = "F32",
                                    .rank = 1,
                                    .shape = {6},
                                    .data = values,
                                    .data_bytes = 24};
        save(scratch_path(state, "aligned.safetensors", path), &tensor, 1, NULL, 0);
        char *file = scratch_read(path, &bytes);
        assert_int_equal((bytes - 24) % 8, 0);
        assert_memory_equal(file + bytes - 24, values, 24);
        free(file);
    }
}

static void writer_no_tensors_and_no_metadata_is_a_valid_file(void **state) {
    char path[SCRATCH_PATH_BYTES];
    save(scratch_path(state, "none.safetensors", path), NULL, 0, NULL, 0);
    safetensors_file *file = reopen(path);
    assert_int_equal(safetensors_count(file), 0);
    safetensors_close(file);
}

static void writer_existing_file_is_replaced_whole(void **state) {
    char path[SCRATCH_PATH_BYTES];
    char old[5000];
    memset(old, 'x', sizeof old);
    scratch_write(scratch_path(state, "out.safetensors", path), old, sizeof old);
    save(path, NULL, 0, NULL, 0);
    safetensors_close(reopen(path));
    assert_int_equal(scratch_count(state), 1);
}

static void writer_missing_directory_is_an_error_that_names_the_path(void **state) {
    char path[SCRATCH_PATH_BYTES];
    char error[500] = "";
    scratch_path(state, "absent/out.safetensors", path);
    assert_int_not_equal(safetensors_save(path, NULL, 0, NULL, 0, error, sizeof error), 0);
    assert_memory_equal(error, path, strlen(path));
    assert_non_null(strstr(error, "No such file or directory"));
}

static void writer_directory_in_the_way_is_an_error_and_stays(void **state) {
    char path[SCRATCH_PATH_BYTES];
    char error[500] = "";
    assert_int_equal(mkdir(scratch_path(state, "taken", path), 0700), 0);
    assert_int_not_equal(safetensors_save(path, NULL, 0, NULL, 0, error, sizeof error), 0);
    assert_non_null(strstr(error, "not a regular file"));
    assert_int_equal(scratch_count(state), 1);
}

static mode_t mode_of(const char *path) {
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    return status.st_mode & (mode_t)07777;
}

static void writer_new_file_has_the_mode_of_the_umask(void **state) {
    char path[SCRATCH_PATH_BYTES];
    mode_t before = umask(0027);
    save(scratch_path(state, "out.safetensors", path), NULL, 0, NULL, 0);
    (void)umask(0077);
    save(scratch_path(state, "own.safetensors", path), NULL, 0, NULL, 0);
    (void)umask(before);
    assert_int_equal(mode_of(path), 0600);
    assert_int_equal(mode_of(scratch_path(state, "out.safetensors", path)), 0640);
}

static void writer_replaced_file_hands_on_its_mode_and_owner(void **state) {
    static const mode_t modes[] = {0600, 0400, 0640, 0664, 0666, 0755};
    char path[SCRATCH_PATH_BYTES];
    struct stat status;
    mode_t before = umask(0022);
    scratch_path(state, "out.safetensors", path);
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        (void)unlink(path);
        scratch_write(path, "old", 3);
        assert_int_equal(chmod(path, modes[i]), 0);
        if (geteuid() == 0) {
            assert_int_equal(chown(path, 12345, 23456), 0);
        }
        save(path, NULL, 0, NULL, 0);
        safetensors_close(reopen(path));
        assert_int_equal(mode_of(path), modes[i]);
        assert_int_equal(stat(path, &status), 0);
        assert_int_equal(status.st_uid, geteuid() == 0 ? 12345 : geteuid());
        assert_int_equal(status.st_gid, geteuid() == 0 ? 23456 : getegid());
    }
    (void)umask(before);
}

/* Another than root may not give a file away: what its group could do, everybody must be able to. */
static void writer_file_of_another_group_is_not_opened_to_ours(void **state) {
    char path[SCRATCH_PATH_BYTES];
    struct stat status;
    if (geteuid() != 0) {
        print_message("left out: only root can make a file of another group\n");
        skip();
    }
    scratch_write(scratch_path(state, "out.safetensors", path), "old", 3);
    assert_int_equal(chown(path, 12345, 23456), 0);
    assert_int_equal(chmod(path, 06674), 0);
    assert_int_equal(chmod(*state, 0777), 0);
    assert_int_equal(setegid(34567), 0);
    assert_int_equal(seteuid(34567), 0);
    char error[500] = "";
    int result = safetensors_save(path, NULL, 0, NULL, 0, error, sizeof error);
    assert_int_equal(seteuid(0), 0);
    assert_int_equal(setegid(0), 0);
    assert_int_equal(result, 0);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_uid, 34567);
    assert_int_equal(status.st_gid, 34567);
    assert_int_equal(mode_of(path), 0644);
}

static void replacement_takes_no_name_that_can_be_foreseen(void **state) {
    char path[SCRATCH_PATH_BYTES];
    char error[500] = "";
    struct stat status;
    file_replacement first;
    file_replacement second;
    scratch_path(state, "out", path);
    assert_int_equal(file_replace_begin(&first, path, error, sizeof error), 0);
    assert_int_equal(file_replace_begin(&second, path, error, sizeof error), 0);
    assert_string_not_equal(first.temporary_path, second.temporary_path);
    assert_memory_equal(first.temporary_path, *state, strlen(*state));
    assert_int_equal(lstat(first.temporary_path, &status), 0);
    assert_int_equal(file_replace_write(&first, "first", 5), 0);
    assert_int_equal(file_replace_commit(&first, error, sizeof error), 0);
    file_replace_abandon(&second);
    assert_int_equal(scratch_count(state), 1);
}

static void replacement_opens_nothing_that_is_there(void **state) {
    char path[SCRATCH_PATH_BYTES];
    char target[SCRATCH_PATH_BYTES];
    char error[500] = "";
    size_t bytes = 0;
    file_replacement replacement;
    scratch_write(scratch_path(state, "target", target), "kept", 4);
    scratch_path(state, "out", path);
    same_numbers = 1;
    assert_int_equal(file_replace_begin(&replacement, path, error, sizeof error), 0);
    char *foreseen = strdup(replacement.temporary_path);
    file_replace_abandon(&replacement);
    assert_non_null(foreseen);
    assert_int_equal(symlink(target, foreseen), 0);

    same_numbers = 3;
    assert_int_equal(file_replace_begin(&replacement, path, error, sizeof error), 0);
    assert_string_not_equal(replacement.temporary_path, foreseen);
    assert_int_equal(same_numbers, 0);
    assert_int_equal(file_replace_write(&replacement, "new", 3), 0);
    assert_int_equal(file_replace_commit(&replacement, error, sizeof error), 0);

    same_numbers = INT32_MAX;
    assert_int_equal(file_replace_begin(&replacement, path, error, sizeof error), -1);
    same_numbers = 0;
    assert_memory_equal(error, path, strlen(path));
    assert_non_null(strstr(error, ": File exists"));
    char *kept = scratch_read(target, &bytes);
    assert_string_equal(kept, "kept");
    free(kept);
    assert_int_equal(unlink(foreseen), 0);
    free(foreseen);
    assert_int_equal(scratch_count(state), 2);
}

/* The name that was taken before: somebody else's link there led the writer to the link's target. */
static void replacement_leaves_links_of_its_old_name_alone(void **state) {
    char path[SCRATCH_PATH_BYTES];
    char target[SCRATCH_PATH_BYTES];
    char link_path[SCRATCH_PATH_BYTES];
    char name[40];
    size_t bytes = 0;
    scratch_write(scratch_path(state, "target", target), "kept", 4);
    (void)snprintf(name, sizeof name, "out.%ld.part", (long)getpid());
    assert_int_equal(link(target, scratch_path(state, name, link_path)), 0);
    save(scratch_path(state, "out", path), NULL, 0, NULL, 0);
    char *kept = scratch_read(target, &bytes);
    assert_string_equal(kept, "kept");
    free(kept);
}

/* A name as long as a file's may be leaves no room for more behind it. */
static void replacement_of_the_longest_name_succeeds(void **state) {
    char path[600];
    char name[256];
    memset(name, 'n', 255);
    name[255] = '\0';
    (void)snprintf(path, sizeof path, "%s/%s", (const char *)*state, name);
    save(path, NULL, 0, NULL, 0);
    safetensors_close(reopen(path));
    assert_int_equal(unlink(path), 0);
}

static void replacement_abandoned_leaves_the_old_file(void **state) {
    char path[SCRATCH_PATH_BYTES];
    char error[500] = "";
    size_t bytes = 0;
    file_replacement replacement;
    scratch_write(scratch_path(state, "kept", path), "old", 3);
    assert_int_equal(file_replace_begin(&replacement, path, error, sizeof error), 0);
    assert_int_equal(file_replace_write(&replacement, "new and longer", 14), 0);
    file_replace_abandon(&replacement);
    char *kept = scratch_read(path, &bytes);
    assert_string_equal(kept, "old");
    free(kept);
    assert_int_equal(scratch_count(state), 1);
}

static void replacement_failed_write_is_reported_by_commit(void **state) {
    char path[SCRATCH_PATH_BYTES];
    char error[500] = "";
    size_t bytes = 0;
    file_replacement replacement;
    scratch_write(scratch_path(state, "kept", path), "old", 3);
    assert_int_equal(file_replace_begin(&replacement, path, error, sizeof error), 0);
    FILE *read_only = fopen(path, "rb");
    assert_non_null(read_only);
    int descriptor = replacement.descriptor;
    replacement.descriptor =
        fileno(read_only); /* writing to it fails with EBADF, as a full disk would with ENOSPC */
    assert_int_not_equal(file_replace_write(&replacement, "new", 3), 0);
    assert_int_not_equal(file_replace_write(&replacement, "new", 3), 0);
    replacement.descriptor = descriptor;
    assert_int_not_equal(file_replace_commit(&replacement, error, sizeof error), 0);
    assert_non_null(strstr(error, "Bad file descriptor"));
    assert_int_equal(fclose(read_only), 0);
    char *kept = scratch_read(path, &bytes);
    assert_string_equal(kept, "old");
    free(kept);
    assert_int_equal(scratch_count(state), 1);
}

int main(void) {
#define SCRATCH_TEST(test) cmocka_unit_test_setup_teardown(test, scratch_setup, scratch_teardown)
    const struct CMUnitTest tests[] = {
        SCRATCH_TEST(writer_tensors_and_metadata_read_back_the_same),
        SCRATCH_TEST(writer_data_begins_at_a_multiple_of_eight),
        SCRATCH_TEST(writer_no_tensors_and_no_metadata_is_a_valid_file),
        SCRATCH_TEST(writer_existing_file_is_replaced_whole),
        SCRATCH_TEST(writer_missing_directory_is_an_error_that_names_the_path),
        SCRATCH_TEST(writer_directory_in_the_way_is_an_error_and_stays),
        SCRATCH_TEST(writer_new_file_has_the_mode_of_the_umask),
        SCRATCH_TEST(writer_replaced_file_hands_on_its_mode_and_owner),
        SCRATCH_TEST(writer_file_of_another_group_is_not_opened_to_ours),
        SCRATCH_TEST(replacement_takes_no_name_that_can_be_foreseen),
        SCRATCH_TEST(replacement_opens_nothing_that_is_there),
        SCRATCH_TEST(replacement_leaves_links_of_its_old_name_alone),
        SCRATCH_TEST(replacement_of_the_longest_name_succeeds),
        SCRATCH_TEST(replacement_abandoned_leaves_the_old_file),
        SCRATCH_TEST(replacement_failed_write_is_reported_by_commit),
    };
    return cmocka_run_group_tests_name("safetensors_write", tests, NULL, NULL);
}
