"""Is a model, with its template, engine and verifier, what training assumes?"""
