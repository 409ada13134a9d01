--
-- PostgreSQL database dump
--

\restrict tPVR3jzKpzabN5WTCRKp0oSRKiMhfOSzO4s4uw691tHLKMEp7ugH9XP4Bb5dftZ

-- Dumped from database version 15.18 (Debian 15.18-0+deb12u1)
-- Dumped by pg_dump version 15.18 (Debian 15.18-0+deb12u1)

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: other; Type: SCHEMA; Schema: -; Owner: postgres
--

CREATE SCHEMA other;


ALTER SCHEMA other OWNER TO postgres;

--
-- Name: f(); Type: FUNCTION; Schema: public; Owner: postgres
--

CREATE FUNCTION public.f() RETURNS text
    LANGUAGE sql
    AS $$
-- Data for Name: nothing; Type: TABLE DATA; Schema: public
select 'COPY people FROM stdin;'
$$;


ALTER FUNCTION public.f() OWNER TO postgres;

SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: letters; Type: TABLE; Schema: other; Owner: postgres
--

CREATE TABLE other.letters (
    id integer NOT NULL,
    body text
);


ALTER TABLE other.letters OWNER TO postgres;

--
-- Name: empty; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.empty (
    nothing integer
);


ALTER TABLE public.empty OWNER TO postgres;

--
-- Name: odd "name" (x); Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public."odd ""name"" (x)" (
    words text
);


ALTER TABLE public."odd ""name"" (x)" OWNER TO postgres;

--
-- Name: people; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.people (
    id integer NOT NULL,
    name text
);


ALTER TABLE public.people OWNER TO postgres;

--
-- Name: letters letters_pkey; Type: CONSTRAINT; Schema: other; Owner: postgres
--

ALTER TABLE ONLY other.letters
    ADD CONSTRAINT letters_pkey PRIMARY KEY (id);


--
-- Name: people people_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.people
    ADD CONSTRAINT people_pkey PRIMARY KEY (id);


--
-- PostgreSQL database dump complete
--

\unrestrict tPVR3jzKpzabN5WTCRKp0oSRKiMhfOSzO4s4uw691tHLKMEp7ugH9XP4Bb5dftZ

