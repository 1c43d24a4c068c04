package io.github.sparkmla.checkpoint.jinja;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;

/** The filter {@code urlencode}. */
final class UrlEncoding {
    private static final String UNRESERVED = "_.-~";

    private UrlEncoding() {}

    static String encode(Values values, Object value) {
        if (value instanceof String || !Values.isIterable(value)) {
            return quote(values, value, false);
        }
        Object pairs = value instanceof PyTypes.Dict dict ? dict.items() : value;
        List<String> parts = new ArrayList<>();
        Iterator<Object> iterator = values.iterate(pairs);
        while (iterator.hasNext()) {
            List<Object> pair = values.list(iterator.next());
            if (pair.size() != 2) {
                throw JinjaException.error("urlencode needs pairs of keys and values");
            }
            parts.add(quote(values, pair.get(0), true) + "=" + quote(values, pair.get(1), true));
        }
        return String.join("&", parts);
    }

    private static String quote(Values values, Object value, boolean query) {
        String text = values.str(value);
        values.limits.allocate(text.length() * 3L);
        StringBuilder out = new StringBuilder();
        for (byte octet : text.getBytes(StandardCharsets.UTF_8)) {
            char c = (char) (octet & 0xff);
            if (c == ' ' && query) {
                out.append('+');
            } else if (c < 0x80 && (Text.isNamePart(c) || UNRESERVED.indexOf(c) >= 0 || (c == '/' && !query))) {
                out.append(c);
            } else {
                out.append(String.format("%%%02X", (int) c));
            }
        }
        return out.toString();
    }
}
