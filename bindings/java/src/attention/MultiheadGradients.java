// SPDX-License-Identifier: BSD-3-Clause
package attention;

import com.sun.jna.Pointer;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * Gradients of {@link SavedForward#backward}: those that are given and those that are wanted; new ones
 * are none. Each has the shape of what it is of, and its type or that of the scores. Each method returns
 * this.
 */
public final class MultiheadGradients {
    private final Tensor output;
    private final Map<String, Tensor> inputs = new HashMap<>();
    private final Map<String, Tensor> parameters = new HashMap<>();
    private SdpaGradients attention;
    private boolean accumulates;

    /** Given: the gradient of output. */
    public MultiheadGradients(Tensor output) {
        this.output = output;
    }

    /** What is wanted, of the attention inside too, is added to what is there. */
    public MultiheadGradients accumulate(boolean adds) {
        accumulates = adds;
        return this;
    }

    /** Out. */
    public MultiheadGradients query(Tensor gradient) {
        return putInput("query", gradient);
    }

    /** Out. */
    public MultiheadGradients key(Tensor gradient) {
        return putInput("key", gradient);
    }

    /** Out. */
    public MultiheadGradients value(Tensor gradient) {
        return putInput("value", gradient);
    }

    private MultiheadGradients putInput(String field, Tensor gradient) {
        inputs.put(field, Tensor.written("gradients." + field, gradient));
        return this;
    }

    /** Out: of a parameter, by PyTorch's name. */
    public MultiheadGradients parameter(String name, Tensor gradient) {
        parameters.put(name, Tensor.written("gradients." + name, gradient));
        return this;
    }

    /**
     * Of the attention inside: given are those of lse and weights, out are those of its options. Its
     * output, query, key and value are null: those above count.
     */
    public MultiheadGradients attention(SdpaGradients gradients) {
        attention = gradients;
        return this;
    }

    /** For a layer whose parameters have these names. */
    Argument of(List<String> names) {
        for (final String name : parameters.keySet()) {
            if (!names.contains(name)) {
                throw new AttentionException(
                        Abi.ERROR_PARAMETER, "gradients." + name + ": expected a parameter of the layer");
            }
        }
        return new Raw(this, names);
    }

    /** The struct of one call. */
    private static final class Raw extends Argument {
        private final Abi.MhaGradients raw = new Abi.MhaGradients();
        // What the struct points at lives as long as it.
        private final MultiheadGradients gradients;
        private final Tensor.Array parameters;

        Raw(MultiheadGradients gradients, List<String> names) {
            this.gradients = gradients;
            final List<Tensor> ordered = new ArrayList<>();
            names.forEach(name -> ordered.add(gradients.parameters.get(name)));
            parameters = new Tensor.Array(ordered);
            raw.accumulate = gradients.accumulates ? 1 : 0;
            raw.output = Tensor.pointerOf(gradients.output);
            raw.parameters = parameters.pointer();
            raw.num_parameters = names.size();
        }

        @Override
        Pointer pointer() {
            gradients.inputs.forEach((field, tensor) -> raw.writeField(field, Tensor.pointerOf(tensor)));
            raw.attention = gradients.attention == null ? null : gradients.attention.pointer();
            raw.write();
            return raw.getPointer();
        }
    }
}
