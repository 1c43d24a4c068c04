package io.github.sparkmla.checkpoint.jinja;

import java.time.LocalDateTime;
import java.time.format.TextStyle;
import java.util.Locale;

/** {@code datetime.strftime} in the C locale with glibc's flag {@code -} (no padding). */
final class Strftime {
    private Strftime() {}

    static String format(LocalDateTime time, String format) {
        StringBuilder out = new StringBuilder();
        for (int i = 0; i < format.length(); i++) {
            char c = format.charAt(i);
            if (c != '%') {
                out.append(c);
                continue;
            }
            boolean unpadded = format.startsWith("-", i + 1);
            i += unpadded ? 2 : 1;
            char directive = i < format.length() ? format.charAt(i) : 0;
            String text = directive(time, directive);
            boolean number = "dmyHIMSj".indexOf(directive) >= 0;
            if (text == null || (unpadded && !number)) {
                throw JinjaException.unsupported(
                        "strftime_now with %" + (unpadded ? "-" : "") + (directive == 0 ? "" : directive));
            }
            out.append(unpadded ? String.valueOf(Integer.parseInt(text)) : text);
        }
        return out.toString();
    }

    private static String directive(LocalDateTime time, char directive) {
        int hour = time.getHour() % 12 == 0 ? 12 : time.getHour() % 12;
        return switch (directive) {
            case 'a' -> time.getDayOfWeek().getDisplayName(TextStyle.SHORT, Locale.ENGLISH);
            case 'A' -> time.getDayOfWeek().getDisplayName(TextStyle.FULL, Locale.ENGLISH);
            case 'b', 'h' ->
                time.getMonth().getDisplayName(TextStyle.FULL, Locale.ENGLISH).substring(0, 3);
            case 'B' -> time.getMonth().getDisplayName(TextStyle.FULL, Locale.ENGLISH);
            case 'd' -> padded(time.getDayOfMonth(), 2, '0');
            case 'e' -> padded(time.getDayOfMonth(), 2, ' ');
            case 'm' -> padded(time.getMonthValue(), 2, '0');
            case 'y' -> padded(time.getYear() % 100, 2, '0');
            case 'Y' -> String.valueOf(time.getYear());
            case 'H' -> padded(time.getHour(), 2, '0');
            case 'I' -> padded(hour, 2, '0');
            case 'M' -> padded(time.getMinute(), 2, '0');
            case 'S' -> padded(time.getSecond(), 2, '0');
            case 'f' -> padded(time.getNano() / 1000, 6, '0');
            case 'j' -> padded(time.getDayOfYear(), 3, '0');
            case 'p' -> time.getHour() < 12 ? "AM" : "PM";
            case 'u' -> String.valueOf(time.getDayOfWeek().getValue());
            case 'w' -> String.valueOf(time.getDayOfWeek().getValue() % 7);
            case 'F' -> format(time, "%Y-%m-%d");
            case 'T', 'X' -> format(time, "%H:%M:%S");
            case 'R' -> format(time, "%H:%M");
            case 'D', 'x' -> format(time, "%m/%d/%y");
            case 'c' -> format(time, "%a %b %e %H:%M:%S %Y");
            case 'Z', 'z' -> "";
            case '%' -> "%";
            case 'n' -> "\n";
            case 't' -> "\t";
            default -> null;
        };
    }

    private static String padded(int number, int width, char fill) {
        String digits = String.valueOf(number);
        return String.valueOf(fill).repeat(Math.max(0, width - digits.length())) + digits;
    }
}
