"""Published claims, measured again at the scale of two cores through the ordinary API."""
