-- A small shop. The card numbers are the payment networks' published test numbers.
CREATE TABLE public.customers (
    id          integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    name        text NOT NULL,
    email       text NOT NULL UNIQUE,
    card_number text NOT NULL
);
CREATE TABLE public.products (
    id    integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    title text NOT NULL,
    cents integer NOT NULL CHECK (cents > 0)
);
CREATE TABLE public.orders (
    id       integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    customer integer NOT NULL REFERENCES public.customers,
    product  integer NOT NULL REFERENCES public.products,
    quantity integer NOT NULL DEFAULT 1 CHECK (quantity > 0)
);
INSERT INTO public.customers (name, email, card_number) VALUES
    ('Ada Lindqvist', 'ada@example.com', '4111111111111111'),
    ('Bela Novak', 'bela@example.org', '5555555555554444'),
    ('Chidi Okafor', 'chidi@example.net', '378282246310005'),
    ('Dana Silva', 'dana@example.com', '6011111111111117'),
    ('Emre Yilmaz', 'emre@example.org', '4012888888881881');
INSERT INTO public.products (title, cents) VALUES
    ('Tide table', 1250), ('Brass bell', 4800), ('Chart of the estuary', 2300),
    ('Oilskin coat', 15900), ('Harbour mug', 900);
INSERT INTO public.orders (customer, product, quantity) VALUES
    (1, 1, 1), (1, 5, 4), (2, 2, 1), (3, 3, 2), (3, 4, 1),
    (4, 5, 6), (4, 1, 2), (5, 2, 1), (5, 3, 1), (2, 5, 2);

-- Nothing here needs a mask.
CREATE SCHEMA store;
CREATE TABLE store.branches (
    id   integer PRIMARY KEY,
    city text NOT NULL,
    tags text[] NOT NULL DEFAULT '{}'
);
INSERT INTO store.branches VALUES
    (1, 'Lisbon', '{harbour,first}'), (2, 'Gdansk', '{}'), (3, 'Bergen', '{harbour}');
