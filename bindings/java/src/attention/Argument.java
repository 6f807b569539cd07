// SPDX-License-Identifier: BSD-3-Clause
package attention;

import com.sun.jna.Pointer;

/**
 * What calls are given beside numbers and names. The memory behind it, and behind all that it refers
 * to, is there as long as the object is reachable.
 */
abstract class Argument {
    /** What C gets; fetched within the call that uses it, and by nobody else. */
    abstract Pointer pointer();
}
