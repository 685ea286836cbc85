"""Tables, figures and the page that say what runs showed."""
