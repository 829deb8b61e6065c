"""The referee: function values in arithmetic of many digits, and differences of them."""
