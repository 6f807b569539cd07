// SPDX-License-Identifier: BSD-3-Clause
import attention.Tensor;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;

/** Reads the case files that the library's build exports (tests/interop/README.md). */
final class CaseFile {
    record Expected(double tolerance, Tensor values) {}

    String call;
    final Map<String, String> options = new HashMap<>();
    final Map<String, Tensor> tensors = new HashMap<>();
    final Map<String, Expected> expected = new HashMap<>();
    int errorCode;
    String errorText = "";
    private final ByteBuffer bytes;

    CaseFile(Path path) throws IOException {
        bytes = ByteBuffer.wrap(Files.readAllBytes(path));
        while (bytes.hasRemaining()) {
            readRecord(readLine());
        }
    }

    private String readLine() {
        final int start = bytes.position();
        while (bytes.get() != '\n') {}
        return new String(
                bytes.array(), start, bytes.position() - 1 - start, StandardCharsets.US_ASCII);
    }

    private void readRecord(String line) {
        final String[] words = line.split(" ", 3);
        switch (words[0]) {
            case "call" -> call = words[1];
            case "option" -> options.put(words[1], words[2]);
            case "tensor" -> tensors.put(words[1], readElements(words[2]));
            case "expect" -> {
                final String[] rest = words[2].split(" ", 2);
                final double tolerance = Double.parseDouble(rest[0]);
                expected.put(words[1], new Expected(tolerance, readElements(rest[1])));
            }
            case "error" -> {
                errorCode = Integer.parseInt(words[1]);
                errorText = words[2];
            }
            default -> throw new IllegalStateException("unknown record: " + line);
        }
    }

    /** "DTYPE RANK D0 D1 ..." and the elements behind the line. */
    private Tensor readElements(String words) {
        final String[] parts = words.split(" ");
        final Tensor.Dtype dtype = Tensor.Dtype.valueOf(parts[0].toUpperCase());
        final long[] shape = Arrays.stream(parts).skip(2).mapToLong(Long::parseLong).toArray();
        final int width =
                switch (dtype) {
                    case BOOL, INT8, UINT8 -> 1;
                    case BFLOAT16, FLOAT16 -> 2;
                    case FLOAT32, INT32 -> 4;
                    case FLOAT64, INT64 -> 8;
                };
        final int count = (int) Arrays.stream(shape).reduce(1, Math::multiplyExact);
        final ByteBuffer memory =
                ByteBuffer.allocateDirect(Math.max(1, count * width)).order(ByteOrder.LITTLE_ENDIAN);
        memory.put(0, bytes, bytes.position(), count * width);
        bytes.position(bytes.position() + count * width);
        return Tensor.view(dtype, memory, shape);
    }
}
