// SPDX-License-Identifier: BSD-3-Clause
package attention;

/** A call that was refused, or failed; the message names the argument. */
public final class AttentionException extends RuntimeException {
    private static final long serialVersionUID = 1L;
    private final int code;

    AttentionException(int code, String message) {
        super(message);
        this.code = code;
    }

    /** The library's status, for example 3. */
    public int code() {
        return code;
    }

    /** Its name, for example "ATTN_ERROR_SHAPE". */
    public String codeName() {
        return Abi.LIBRARY.attn_status_name(code);
    }
}
